"""The distribution before the norm and after it, in six numbers each."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.measures.columns import Column, Paint, signed
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array, Moments

_SIX = (
    ("mean", "Mean of the values {} the norm.", "mean x", "input"),
    ("var", "Variance {} the norm (divisor n).", "Σ(x − mean)² / n", "input²"),
    (
        "skew",
        "Skewness {} the norm: 0 for a symmetric distribution.",
        "√n Σ(x − mean)³ / (Σ(x − mean)²)^1.5",
        "",
    ),
    (
        "kurtosis",
        "Excess kurtosis {} the norm, the weight of the tails: 0 for a Gaussian, 3 for a Laplacian.",
        "n Σ(x − mean)⁴ / (Σ(x − mean)²)² − 3",
        "",
    ),
    ("min", "Smallest value {} the norm.", "min x", "input"),
    ("max", "Largest value {} the norm.", "max x", "input"),
)

_ON_PAGE: dict[str, dict[str, Any]] = {
    "pre_mean": {"rank": 1, "paint": signed("match with training", "mean before the norm", None)},
    "pre_var": {
        "rank": 1,
        "paint": Paint(
            "match with training", "variance before the norm", "viridis", "log", limits=(1e-4, 1e2)
        ),
    },
    "pre_skew": {"rank": 3, "paint": signed("shape and classes", "skewness before the norm", 3)},
    "pre_kurtosis": {
        "rank": 3,
        "paint": Paint("shape and classes", "excess kurtosis before the norm", "rocket", limits=(-2, 10)),
    },
    "pre_min": {"rank": 8},
    "pre_max": {"rank": 8},
    "post_mean": {"rank": 3, "paint": signed("activity", "mean after the norm", 2)},
    "post_var": {
        "rank": 3,
        "paint": Paint("activity", "variance after the norm", "viridis", "log", limits=(1e-3, 10)),
    },
    "post_min": {"rank": 8},
    "post_max": {"rank": 8},
}

COLUMNS = (
    *(
        Column(
            f"{side}_{name}",
            meaning.format(word),
            formula,
            unit.replace("input", "input" if side == "pre" else "output"),
            **_ON_PAGE.get(f"{side}_{name}", {}),
        )
        for side, word in (("pre", "before"), ("post", "after"))
        for name, meaning, formula, unit in _SIX
    ),
    Column(
        "pre_skew_median",
        "Typical skewness of the layer's inputs, without sign.",
        "median |pre_skew|",
        table="layers",
    ),
    Column("pre_kurtosis_median", "Typical excess kurtosis of the layer's inputs.", "median", table="layers"),
    Column(
        "pre_sd_median",
        "Typical standard deviation of the layer's inputs.",
        "median √pre_var",
        "input",
        table="layers",
    ),
    Column(
        "post_sd_median",
        "Typical standard deviation of the layer's outputs.",
        "median √post_var",
        "output",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Mean, variance, skewness, excess kurtosis and extremes before and after; NaN where undefined."""
    return {
        f"{side}_{name}": values
        for side, moments in (("pre", record.pre), ("post", record.post))
        for name, values in _six(moments).items()
    }


def _six(moments: Moments) -> dict[str, Array]:
    some = moments.n > 0
    return {
        "mean": moments.mean_seen,
        "var": moments.var_population,
        "skew": moments.skewness,
        "kurtosis": moments.kurtosis_excess,
        "min": np.where(some, moments.low, np.nan),
        "max": np.where(some, moments.high, np.nan),
    }


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """Medians over channels; NaN where no channel has a value."""
    return {
        "pre_skew_median": median(np.abs(record.pre.skewness)),
        "pre_kurtosis_median": median(record.pre.kurtosis_excess),
        "pre_sd_median": median(np.sqrt(record.pre.var_population)),
        "post_sd_median": median(np.sqrt(record.post.var_population)),
    }


def median(values: Array) -> float:
    """Median of the values that are there; NaN where there are none, without a warning."""
    there = values[~np.isnan(values)]
    return float(np.median(there)) if there.size else float("nan")
