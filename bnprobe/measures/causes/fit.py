"""How well a cause predicts what a norm measures: the one score by which all causes are compared.

A cause predicts the mean and the variance of every channel. What it leaves of the discrepancy is, per channel,

    (mean − predicted mean)² / ((var + predicted var)/2 + eps)  +  (½ ln((var + eps)/(predicted var + eps)))²

so that a prediction of the mean alone, or of the variance alone, is not enough, and neither a tiny nor a huge predicted
variance makes the other half vanish. The running statistics as they are predict that nothing happened; what they leave is
the discrepancy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnprobe.measures.stored_variance import var_as_stored
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Moments2:
    """Mean and variance of the channels of one site, (C,) each: measured, stored, or predicted."""

    mean: Array
    var: Array


def seen(record: LayerRecord) -> Moments2:
    """What was measured, as running statistics hold it: the variance within samples where a norm pools within samples."""
    return Moments2(record.pre.mean_seen, var_as_stored(record))


def stored(record: LayerRecord) -> Moments2:
    """The running statistics; for sites that have them."""
    assert record.running_mean is not None
    assert record.running_var is not None
    return Moments2(record.running_mean, record.running_var)


def parts(measured: Moments2, predicted: Moments2, eps: float) -> tuple[Array, Array]:
    """What a prediction leaves of the mean and of the log std, squared, per channel; NaN where a number is not finite."""
    with np.errstate(all="ignore"):
        var, other = measured.var + eps, predicted.var + eps
        away = (measured.mean - predicted.mean) ** 2 / ((var + other) / 2)
        scale = (np.log(var / other) / 2) ** 2
        known = np.isfinite(away) & np.isfinite(scale)
        return np.where(known, away, np.nan), np.where(known, scale, np.nan)


def left(measured: Moments2, predicted: Moments2, eps: float) -> Array:
    """What a prediction leaves of the discrepancy, squared, per channel; NaN where a number is not finite."""
    away, scale = parts(measured, predicted, eps)
    return away + scale


def rms(squares: Array) -> float:
    """Root of the mean of the squares that are known; NaN where none is."""
    return float(rms_of_rows(squares[None])[0])


def rms_of_rows(squares: Array) -> Array:
    """The same for every row of several predictions, (S, C): (S,)."""
    known = ~np.isnan(squares)
    n = known.sum(axis=-1)
    total = np.where(known, squares, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(total / np.where(n > 0, n, np.nan)))


def explained(left_over: float, discrepancy: float) -> float:
    """Share of the squared discrepancy that is gone: 1 all, 0 none, below 0 where the prediction is worse than none."""
    return 1 - (left_over / discrepancy) ** 2 if discrepancy > 0 else float("nan")
