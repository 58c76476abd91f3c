"""What was already implied: the memory of a norm, as far as the norms and weights before it determine it.

What is left over is what the layer saw that independent Gaussians would not have shown it. All of it
about the remembered statistics, so NaN for norms that store none and where no neighbour is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

_NAGEL = "Nagel et al. 2019, arXiv:1906.04721"
_R2 = "1 − Σ(t − t̂)² / Σ(t − mean t)², t = running_mean / √(running_var + eps)"

CONTROLS = ("permuted", "constant", "signed", "unpadded")

COLUMNS = (
    Column(
        "implied_mean",
        "The remembered mean, as the norms, activations and weights before the layer imply it.",
        "Σ W E[f(N(β, γ²))] + bias, borders counted",
        "input",
        _NAGEL,
    ),
    Column(
        "implied_gap",
        "What the remembered mean holds beyond what was implied.",
        "(running_mean − implied_mean) / √(running_var + eps)",
        "remembered σ",
        _NAGEL,
    ),
    Column(
        "implied_var_ratio",
        "Remembered variance against that of independent inputs: above 1 the layer relies on covariance.",
        "running_var / Σ W² Var f(N(β, γ²))",
    ),
    Column(
        "implied_mean_r2",
        "How much of the remembered means was implied: 1 is all, 0 no more than their average.",
        _R2,
        source=_NAGEL,
        table="layers",
    ),
    Column(
        "implied_mean_rmse",
        "Typical size of what the remembered means hold beyond what was implied.",
        "√(mean of implied_gap²)",
        "remembered σ",
        table="layers",
    ),
    Column(
        "implied_r2_permuted",
        "A control that must do worse: the same with the channels before in another order.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_constant",
        "A control that must do worse: the same with every channel before at their common mean.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_signed",
        "A control, worse where a γ before is negative: the same with γ in the place of |γ|.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_unpadded",
        "A control, worse where zeros are padded: the same with borders taken for interior.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_var_ratio_median",
        "Typical remembered variance against that of independent inputs.",
        "median implied_var_ratio",
        table="layers",
    ),
)


@dataclass(frozen=True)
class Fit:
    """How well remembered means are implied, over the channels of some layers together.

    R2 is about the mean over all these channels, in remembered deviations, as `rmse`; `controls` holds the
    R2 of each control by name. NaN where fewer than two channels are known or all are remembered the same.
    """

    n_layers: int
    n_channels: int
    r2: float
    rmse: float
    controls: dict[str, float]


def pooled(records: Iterable[LayerRecord]) -> Fit:
    """One fit over every channel of these sites whose mean is implied."""
    known = [record for record in records if _pairs(record) is not None]
    columns = {
        name: np.concatenate([_standardized(record, name) for record in known] or [np.zeros(0)])
        for name in ("running", "mean", *(f"mean_{control}" for control in CONTROLS))
    }
    there = np.isfinite(columns["running"]) & np.isfinite(columns["mean"])
    truth, first = columns["running"][there], columns["mean"][there]
    return Fit(
        n_layers=len(known),
        n_channels=truth.size,
        r2=r_squared(truth, first),
        rmse=float(np.sqrt(np.mean((truth - first) ** 2))) if truth.size else float("nan"),
        controls={name: r_squared(truth, columns[f"mean_{name}"][there]) for name in CONTROLS},
    )


def r_squared(truth: Array, predicted: Array) -> float:
    """Share of the truth's sum of squares about its mean that the prediction, taken as it is, explains."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = ((truth - truth.mean()) ** 2).sum() if truth.size > 1 else 0.0
        return float(1 - ((truth - predicted) ** 2).sum() / total) if total > 0 else float("nan")


def _pairs(record: LayerRecord) -> tuple[Array, Array] | None:
    """Running mean and deviation of a site whose mean is implied; None for the others."""
    if record.running_mean is None or record.running_var is None:
        return None
    if record.neighbours is None or record.neighbours.implied is None:
        return None
    with np.errstate(invalid="ignore"):
        return record.running_mean, np.sqrt(record.running_var + record.eps)


def _standardized(record: LayerRecord, name: str) -> Array:
    """One vector of the implied, or the remembered mean itself ("running"), in remembered deviations."""
    mean, sigma = _pairs(record) or (np.zeros(0), np.ones(0))
    implied = record.neighbours.implied if record.neighbours else None
    values = mean if name == "running" else getattr(implied, name)
    with np.errstate(invalid="ignore", divide="ignore"):
        standardized: Array = values / sigma
    return standardized


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Implied mean, what is left of the remembered one, and the variance ratio, shape (C,) each."""
    pairs, neighbours = _pairs(record), record.neighbours
    if pairs is None or neighbours is None or neighbours.implied is None or record.running_var is None:
        missing = np.full(record.n_channels, np.nan)
        return dict.fromkeys(("implied_mean", "implied_gap", "implied_var_ratio"), missing)
    mean, sigma = pairs
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(neighbours.implied.var > 0, record.running_var / neighbours.implied.var, np.nan)
        gap = (mean - neighbours.implied.mean) / sigma
    return {"implied_mean": neighbours.implied.mean, "implied_gap": gap, "implied_var_ratio": ratio}


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """The fit of one layer and its controls; NaN where nothing is implied."""
    fit = pooled([record])
    return {
        "implied_mean_r2": fit.r2,
        "implied_mean_rmse": fit.rmse,
        **{f"implied_r2_{name}": value for name, value in fit.controls.items()},
        "implied_var_ratio_median": median((channels or channel_columns(record))["implied_var_ratio"]),
    }
