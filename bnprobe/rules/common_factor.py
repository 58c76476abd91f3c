"""A rule about one factor in all running statistics, which the norms and weights before each norm give away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.recording.terms import IMPLIED_CORRELATION
from bnprobe.rules.edits import RENEWED, Recalibrate, remedy
from bnprobe.rules.newness import fresh
from bnprobe.rules.remedies import RECALIBRATE
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.wording import count

FEWEST_CHANNELS = 8
"""Channels whose implied means must agree with the running ones in their pattern."""

FEWEST_UPDATES = 50
"""Batches after which torch's momentum of 0.1 has left half a percent of the initial values."""

ALIKE = np.log(2.0)
"""Of means, and twice that of variances: how far the factors of two norms may lie apart to be one."""

MOST = 0.8
"""Share of the norms that must have the factor."""


LEAST = 0.2
"""Share of the norms that store statistics whose factors must be known: of many norms a few follow by chance what norms and
weights that do not feed them would imply."""


@dataclass(frozen=True)
class Factors:
    """Logarithms of the stored statistics relative to the implied ones, one entry per norm, with the first norm's name."""

    layer: str
    mean: np.ndarray
    var: np.ndarray


def scaled(evidence: Evidence) -> Iterator[Finding]:
    """All running means, variances or both are off by one factor."""
    factors = _factors(evidence)
    if factors is None:
        return
    mean, var = float(np.median(factors.mean)), float(np.median(factors.var))
    limit = np.log(evidence.limits.common_factor)
    # means alone are also small where few updates, which old files do not count, have left their initial 0
    means = (mean >= limit or max(mean, var) <= -limit) and _alike(factors.mean, ALIKE)
    # independent inputs give the variance only roughly: two of these factors must be in it
    variances = abs(var) >= 2 * limit and abs(mean) < ALIKE and _alike(factors.var, 2 * ALIKE)
    if not means and not variances:
        return
    what = _what(mean, var) if means else "variances"
    yield Finding(
        "critical",
        factors.layer,
        f"All running {what} are off by one common factor of about {_rounded(mean if means else var)}.",
        f"at {count(len(factors.mean), 'norm')} the running means are typically {_times(mean)} times what the norm and the "
        f"weights before imply, and the variances {_times(var)} times (threshold for means: "
        f"{evidence.limits.common_factor:g}).",
        f"{_advice(mean, var) if means else _UNITS} Otherwise re-estimate them: {RECALIBRATE}.",
        remedy=remedy(Recalibrate()),
    )


def _factors(evidence: Evidence) -> Factors | None:
    """Of every norm whose running means follow the implied ones in their pattern over channels; None for too few."""
    stored = [
        (row, channels)
        for row, channels in evidence.sites
        if not row["call"] and channels["running_var"].notna().any()
    ]
    found = [
        (str(row["layer"]), *both)
        for row, channels in stored
        if not young(row, channels) and (both := of_layer(channels)) is not None
    ]
    if not found or len(found) < LEAST * len(stored):
        return None
    layers, means, variances = zip(*found, strict=True)
    return Factors(layers[0], np.array(means), np.array(variances))


def young(row: pd.Series, channels: pd.DataFrame) -> bool:
    """Whether much of the initial 0 and 1 is left: after one batch, by torch's momentum, means are a tenth of the data's."""
    return fresh(row, channels) or bool(row["n_batches_tracked"] < FEWEST_UPDATES)


def of_layer(channels: pd.DataFrame) -> tuple[float, float] | None:
    """Logarithms of a norm's running means and variances relative to the implied ones; None where means do not follow."""
    running, implied, ratio = (
        channels[name].to_numpy(float) for name in ("running_mean", "implied_mean", "implied_var_ratio")
    )
    known = np.isfinite(running) & np.isfinite(implied)
    x, y = implied[known], running[known]
    ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
    if len(x) < FEWEST_CHANNELS or not ratio.size or not x.std() > 0 or not y.std() > 0:
        return None
    slope = float((x * y).sum() / (x * x).sum())
    if not slope > 0 or not np.corrcoef(x, y)[0, 1] >= IMPLIED_CORRELATION:
        return None
    return float(np.log(slope)), float(np.log(np.median(ratio)))


def _alike(factors: np.ndarray, apart: float) -> bool:
    return bool(np.mean(np.abs(factors - np.median(factors)) < apart) >= MOST)


def _what(mean: float, var: float) -> str:
    """Means and variances; the means alone where the variances are nearer to what is implied than to the factor."""
    return "means and variances" if abs(var) > abs(mean) / 2 and var * mean > 0 else "means"


def _rounded(logarithm: float) -> str:
    """One digit: the implied means are no closer than a tenth or two."""
    factor = float(np.exp(logarithm))
    return f"{float(f'{factor:.0e}'):,g}" if factor >= 1 else f"1/{float(f'{1 / factor:.0e}'):,g}"


def _times(logarithm: float) -> str:
    factor = float(np.exp(logarithm))
    return f"{factor:,.0f}" if factor >= 100 else f"{factor:.2g}"


_UNITS = "Look in the converter for what the original file stores in place of a variance, such as a sum or an inverse."


def _advice(mean: float, var: float) -> str:
    if abs(var - 2 * mean) < abs(var - mean):
        return (
            "The variances have the square of the means' factor, as if the weights before every norm had been scaled down "
            "after the statistics were stored: take both from one file."
        )
    return (
        "Caffe stores sums and, in a third blob, the number to divide both by (about 1,000): divide by that of the original "
        "file, layer by layer."
    )


RULES = (
    Rule(
        "statistics-scaled",
        "Do the running statistics have the scale that the norms and weights before them imply?",
        "https://github.com/BVLC/caffe/blob/master/src/caffe/layers/batch_norm_layer.cpp; Nagel et al. 2019, "
        "arXiv:1906.04721, section 4.2",
        f"running means within a factor of {DEFAULT.common_factor:g} of the implied ones, or each norm with its own factor",
        scaled,
        edits=RENEWED,
    ),
)
