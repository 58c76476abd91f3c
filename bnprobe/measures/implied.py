"""What earlier layers already determine: a norm's running statistics, as previous norms and weights imply them.

What is left over comes from data that independent Gaussians would not have given. All of it is about running
statistics, so NaN for norms that store none and where no neighbor is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Implied, Neighbours
from bnprobe.stats.jackknife import jackknife
from bnprobe.stats.moments import Array, ratio

_NAGEL = "Nagel et al. 2019, arXiv:1906.04721"
_R2 = "1 − Σ(t − t̂)² / Σ(t − mean t)², t = running_mean / √(running_var + eps)"

CONTROLS = ("permuted", "constant", "signed", "unpadded")

COLUMNS = (
    Column(
        "implied_mean",
        "Running mean as implied by the previous norms, activations and weights.",
        "Σ W E[f(N(β, γ²))] + bias, borders counted",
        "input",
        _NAGEL,
        rank=9,
    ),
    Column(
        "implied_gap",
        "Running mean minus the implied mean: what it says about the data beyond that.",
        "(running_mean − implied_mean) / √(running_var + eps)",
        "running σ",
        _NAGEL,
    ),
    Column(
        "implied_var_ratio",
        "Running variance relative to that of independent inputs: above 1 the layer relies on covariance.",
        "running_var / Σ W² Var f(N(β, γ²))",
    ),
    Column(
        "implied_mean_r2",
        "How much of the running means is implied: 1 is all, 0 no more than their average.",
        _R2,
        source=_NAGEL,
        table="layers",
    ),
    Column(
        "implied_r2_se",
        "Standard error of implied_mean_r2, channels taken for a sample of such channels.",
        "jackknife over channels",
        source="Quenouille 1956; Tukey 1958",
        table="layers",
    ),
    Column(
        "implied_skill",
        "Share of the squared error of the constant control that the prediction takes away: 1 is all, 0 none.",
        "1 − Σ(t − t̂)² / Σ(t − t̂_constant)², t as in implied_mean_r2",
        table="layers",
    ),
    Column(
        "implied_mean_rmse",
        "Typical difference of running and implied means.",
        "√(mean of implied_gap²)",
        "running σ",
        table="layers",
    ),
    Column(
        "implied_r2_permuted",
        "Control that must do worse: the same with the previous channels permuted.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_constant",
        "Control that must do worse: the same with all previous channels at their common mean.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_signed",
        "Control, worse where a previous γ is negative: the same with γ in place of |γ|.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_r2_unpadded",
        "Control, worse with zero padding: the same with borders treated like the interior.",
        _R2,
        table="layers",
    ),
    Column(
        "implied_var_ratio_median",
        "Typical running variance relative to that of independent inputs.",
        "median implied_var_ratio",
        table="layers",
    ),
    Column(
        "means_fit",
        "How well the running means of a file follow the norms and weights before, in their pattern over channels.",
        "correlation of running_mean and Σ W E[f(N(β, γ²))] + bias, the best of the norms shortly before",
        "−1 to 1",
        _NAGEL,
        table="layers",
    ),
    Column(
        "means_fit_unfolded",
        "The same with this norm taken out of the weights: higher where it was folded into them and kept.",
        "correlation of running_mean and √(running_var + eps) / γ · Σ W E[f(N(β, γ²))]",
        "−1 to 1",
        _NAGEL,
        table="layers",
    ),
    Column(
        "means_fit_negated",
        "The same of minus the running means: higher where they are stored with the opposite sign.",
        "correlation of −running_mean and Σ W E[f(N(β, γ²))] + bias, the best of the norms shortly before",
        "−1 to 1",
        _NAGEL,
        table="layers",
    ),
    Column(
        "fits_like",
        "The norm whose running means follow these weights where those of this one do not; empty where none does.",
        table="layers",
    ),
    Column(
        "fits_layout",
        "Whether the weights before would imply the running means once transposed, or reshaped and transposed; else empty.",
        table="layers",
    ),
    Column(
        "directly_fed",
        "Whether nothing stands between the previous norm and the weights before this one in a file: 1 for yes.",
        unit="0 or 1",
        table="layers",
    ),
)


@dataclass(frozen=True)
class Fit:
    """How well running means are implied, over the channels of some layers together.

    R2 is about the mean over all these channels, in running σ, as `rmse`, and `r2_se` its error, by leaving out each
    channel; `controls` holds the R2 of each control by name, and `skill` is the share of the constant one's squared error
    that the prediction takes away: R2 credits a prediction with what sets layers apart, too. NaN where fewer than two
    channels are known or all have the same running mean.
    """

    n_layers: int
    n_channels: int
    r2: float
    r2_se: float
    skill: float
    rmse: float
    controls: dict[str, float]


def pooled(records: Iterable[LayerRecord]) -> Fit:
    """One fit over every channel of these sites whose mean is implied."""
    known = [one for record in records if (one := _known(record)) is not None]
    columns = {
        name: np.concatenate([_standardized(*one, name) for one in known] or [np.zeros(0)])
        for name in ("running", "mean", *(f"mean_{control}" for control in CONTROLS))
    }
    there = np.isfinite(columns["running"]) & np.isfinite(columns["mean"])
    truth, first = columns["running"][there], columns["mean"][there]
    return Fit(
        n_layers=len(known),
        n_channels=truth.size,
        r2=r_squared(truth, first),
        r2_se=_error_of_r2(truth, first),
        skill=_skill(truth, first, columns["mean_constant"][there]),
        rmse=float(np.sqrt(np.mean((truth - first) ** 2))) if truth.size else float("nan"),
        controls={name: r_squared(truth, columns[f"mean_{name}"][there]) for name in CONTROLS},
    )


def r_squared(truth: Array, predicted: Array) -> float:
    """Share of the truth's sum of squares about its mean that the prediction, taken as it is, explains."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = ((truth - truth.mean()) ** 2).sum() if truth.size else 0.0
        return float(1 - ratio(((truth - predicted) ** 2).sum(), total))


def _error_of_r2(truth: Array, predicted: Array) -> float:
    """Jackknife over channels of what is left over, whose error is the same; NaN below three."""
    n = truth.size
    if n < 3:
        return float("nan")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        left, far = (truth - predicted) ** 2, (truth - truth.mean()) ** 2
        # without one value the sum of squares about the mean of the others is less by n/(n - 1) its own square
        without = (left.sum() - left) / (far.sum() - far * n / (n - 1))
        return float(jackknife(np.asarray(left.sum() / far.sum()), without, np.ones(n)).se)


def _skill(truth: Array, predicted: Array, constant: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        left, by_constant = (((truth - guess) ** 2).sum() for guess in (predicted, constant))
        return float(1 - ratio(left, by_constant))


def _known(record: LayerRecord) -> tuple[Implied, Array, Array] | None:
    """What is implied of a site, its running mean and running variance with eps; None where nothing is."""
    if record.neighbours is None or record.neighbours.implied is None:
        return None
    if record.running_mean is None or record.running_var is None:
        return None
    return record.neighbours.implied, record.running_mean, record.running_var + record.eps


def _standardized(implied: Implied, mean: Array, divisor: Array, name: str) -> Array:
    """One vector of the implied, or the running mean itself ("running"), in running σ."""
    values = mean if name == "running" else getattr(implied, name)
    with np.errstate(invalid="ignore", divide="ignore"):
        standardized: Array = values / np.sqrt(divisor)
    return standardized


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Implied mean, what the running one holds beyond it, and the variance ratio, shape (C,) each."""
    known = _known(record)
    if known is None:
        missing = np.full(record.n_channels, np.nan)
        return dict.fromkeys(("implied_mean", "implied_gap", "implied_var_ratio"), missing)
    implied, mean, divisor = known
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        gap = (mean - implied.mean) / np.sqrt(divisor)
    return {
        "implied_mean": implied.mean,
        "implied_gap": gap,
        "implied_var_ratio": ratio(record.running_var, implied.var),
    }


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, str | float]:
    """The fit of one layer and its controls; NaN where nothing is implied."""
    fit, around = pooled([record]), record.neighbours or Neighbours("unknown")
    return {
        "implied_mean_r2": fit.r2,
        "implied_r2_se": fit.r2_se,
        "implied_skill": fit.skill,
        "implied_mean_rmse": fit.rmse,
        **{f"implied_r2_{name}": value for name, value in fit.controls.items()},
        "implied_var_ratio_median": median((channels or channel_columns(record))["implied_var_ratio"]),
        "means_fit": around.means_fit,
        "means_fit_unfolded": around.means_fit_unfolded,
        "means_fit_negated": around.means_fit_negated,
        "fits_like": around.fits_like,
        "fits_layout": around.fits_layout,
        "directly_fed": int(around.directly_fed),
    }
