"""The statistics that layer, group, instance and RMS norms take from each sample: those of both sides, and how far apart.

They follow from the moments of the input, so that eps is no part of them: over all values, E[x²] is the mean of the
samples' own μₙ² + σₙ².
"""

from __future__ import annotations

import numpy as np

from bnprobe.comparison.pairs import Pair
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

NAMES = ("own_shift", "own_ratio", "own_gap")


def own_columns(pair: Pair) -> dict[str, float]:
    """Shift, ratio and distance over the groups of the norm; NaN where a side takes none, or groups otherwise."""
    a, b = (_own(record) for record in pair)
    if a is None or b is None or a[0].shape != b[0].shape:
        return dict.fromkeys(NAMES, float("nan"))
    (mean_a, var_a), (mean_b, var_b) = a, b
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit = np.sqrt((var_a + var_b) / 2 + min(pair.a.eps, pair.b.eps))
        shift = (mean_b - mean_a) / unit
        width = (np.sqrt(var_b) - np.sqrt(var_a)) / unit
        ratio = np.where(var_a == var_b, 1.0, var_b / var_a)
        return {
            "own_shift": float(np.mean(shift)),
            "own_ratio": float(np.exp(np.mean(np.log(ratio)) / 2)),
            "own_gap": float(np.sqrt(np.mean(shift**2 + width**2))),
        }


def _own(record: LayerRecord) -> tuple[Array, Array] | None:
    """Mean over samples of what each group subtracts, and of the variance that it divides by; shape (G,) each."""
    if record.own_mean is None or record.n_channels % len(record.own_mean.mean):
        return None
    pre, mean = record.pre, record.own_mean
    with np.errstate(invalid="ignore", over="ignore"):
        energy = (pre.var_population + pre.mean_seen**2).reshape(len(mean.mean), -1).mean(axis=1)
        if record.kind == "rms_norm":
            return np.zeros_like(energy), energy
        of_means = mean.var_population + mean.mean_seen**2
        return mean.mean_seen, np.maximum(energy - of_means, 0.0)
