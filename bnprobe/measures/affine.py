"""The affine view: a norm with fixed statistics is x · slope + intercept, and folds into the preceding weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.measures.columns import Column, Columns, Paint
from bnprobe.measures.shape import median
from bnprobe.recording import BATCH, LayerRecord
from bnprobe.recording.terms import MANY_EPS, NEAR_ZERO
from bnprobe.stats.moments import Array, ratio

_JACOB = "Jacob et al. 2018, arXiv:1712.05877"
_NAGEL = "Nagel et al. 2019, arXiv:1906.04721"

COLUMNS = (
    Column(
        "slope",
        "Factor that the norm applies to its input with fixed statistics (see affine_by).",
        "γ / √(σ² + eps)",
        "output / input",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
    ),
    Column(
        "intercept",
        "Offset that the norm then adds: its output for an input of 0.",
        "β − γ μ / √(σ² + eps)",
        "output",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
    ),
    Column(
        "eps_share", "Share of eps in the variance that the norm divides by.", "eps / (σ² + eps)", "0 to 1"
    ),
    Column(
        "filter_norm",
        "Length (L2 norm) of the weights that produce this channel, as they were when the run began.",
        "√(Σ w²)",
        rank=8,
        paint=Paint("learned", "norm of the preceding weights", "viridis", "log", limits=(1e-2, 10)),
    ),
    Column(
        "filter_bias", "Bias of the preceding layer for the channel; NaN where it has none.", "b", "input"
    ),
    Column(
        "folded_low", "Smallest weight of the channel after folding the norm in.", "min w · slope", "", _JACOB
    ),
    Column(
        "folded_high", "Largest weight of the channel after folding the norm in.", "max w · slope", "", _JACOB
    ),
    Column(
        "bits_lost",
        "Bits that the channel's folded weights lose when quantized with one scale for the whole layer.",
        "log₂(max over channels of r / r), r = max |w · slope|",
        "bits",
        _NAGEL,
        rank=5,
        paint=Paint("learned", "bits lost to one quantization scale per layer", "rocket", limits=(0, 8)),
    ),
    Column(
        "affine_by",
        "Statistics in slope and intercept: running, observed where none are stored, or none.",
        table="layers",
    ),
    Column(
        "eps_dominated",
        "Share of channels whose variance is so small that eps visibly changes the output.",
        f"share of σ² < {MANY_EPS:g} eps",
        "0 to 1",
        table="layers",
    ),
    Column(
        "folded_spread",
        "Typical range of a channel's folded weights, relative to the widest channel.",
        "median r / max r",
        "0 to 1",
        _NAGEL,
        table="layers",
    ),
    Column(
        "bits_lost_median",
        "Bits that a typical channel loses to one scale per layer.",
        "median",
        "bits",
        table="layers",
    ),
    Column(
        "bits_lost_worst",
        "Most bits that a channel with γ not near 0 loses to one scale per layer.",
        f"max bits_lost where |γ| ≥ {NEAR_ZERO:g}",
        "bits",
        _NAGEL,
        table="layers",
    ),
)


def _statistics(record: LayerRecord) -> tuple[Array, Array, str]:
    """Mean and variance of the one map per channel, and whose they are; NaN where there is no such map."""
    if record.running_mean is not None and record.running_var is not None:
        return record.running_mean, record.running_var, "running"
    if record.pools == BATCH:
        return record.pre.mean_seen, record.pre.var_population, "observed"
    missing = np.full(record.n_channels, np.nan)
    return missing, missing, "none"


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The map and the folded weights of every channel, shape (C,) each; NaN where not defined."""
    mean, var, _ = _statistics(record)
    gamma = 1.0 if record.gamma is None else record.gamma
    beta = 0.0 if record.beta is None else record.beta
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        slope = gamma / np.sqrt(var + record.eps)
        share = ratio(record.eps, var + record.eps)
        intercept = beta - slope * mean
    return {"slope": slope, "intercept": intercept, "eps_share": share, **_folded(record)}


def _folded(record: LayerRecord) -> dict[str, Array]:
    folded = record.neighbours.folded if record.neighbours else None
    if folded is None:
        missing = np.full(record.n_channels, np.nan)
        return dict.fromkeys(
            ("filter_norm", "filter_bias", "folded_low", "folded_high", "bits_lost"), missing
        )
    reach = _reach(folded.low, folded.high)
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.where(reach > 0, np.log2(np.fmax.reduce(reach, initial=np.nan) / reach), np.nan)
    return {
        "filter_norm": folded.norm,
        "filter_bias": np.full(record.n_channels, np.nan) if folded.bias is None else folded.bias,
        "folded_low": folded.low,
        "folded_high": folded.high,
        "bits_lost": lost,
    }


def _reach(low: Array, high: Array) -> Array:
    """The half-width of a range around zero that holds both, as quantized weights need."""
    return np.maximum(-low, high)


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, Any]:
    """What the channels say together; NaN where no weights are known, or no map."""
    _, var, by = _statistics(record)
    lost = (channels or channel_columns(record))["bits_lost"]
    live = lost if record.gamma is None else lost[np.abs(record.gamma) >= NEAR_ZERO]
    known = var[~np.isnan(var)]
    return {
        "affine_by": by,
        "eps_dominated": float(np.mean(known < MANY_EPS * record.eps)) if known.size else float("nan"),
        "folded_spread": median(2.0**-lost),
        "bits_lost_median": median(lost),
        "bits_lost_worst": float(np.fmax.reduce(live, initial=np.nan)),
    }
