"""How far the mean of a gradient stands out of its spread between backward passes, without the bias of few passes.

|mean| / std of pure noise is not 0: it is typically 0.25 over 8 passes, and 0.1 over 46. Its square has the expectation
(T − 1)/(T − 3) (snr² + 1/T) over T passes (noncentral F with 1 and T − 1 degrees), which is undone here.
"""

from __future__ import annotations

import numpy as np

from bnprobe.stats import Moments
from bnprobe.stats.moments import Array

FEWEST_PASSES = 8
"""Backward passes below which nothing is said: the error of the square is 0.4 for pure noise."""

ALIKE = 5
"""Channels that are worth one: the gradients of a layer's channels come from the same passes. Of the activations of CIFAR
ResNets 16 channels are worth 3, 32 are worth 7, 64 are worth 9 to 13; gradients are taken to be as correlated."""


def squared(moments: Moments) -> Array:
    """Square of the signal-to-noise ratio, unbiased and so below 0 for half of all noise; shape (C,).

    NaN below FEWEST_PASSES, or where nothing varies.
    """
    n, var = moments.n, moments.var_unbiased
    known = (n >= FEWEST_PASSES) & (var > 0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.where(known, (n - 3) / (n - 1) * moments.mean**2 / var - 1 / n, np.nan)


def of_channels(moments: Moments) -> Array:
    """Signal-to-noise ratio of each channel, 0 where the mean is no larger than noise makes it; shape (C,)."""
    return np.sqrt(np.maximum(squared(moments), 0.0))


def of_layer(moments: Moments) -> tuple[float, float]:
    """Root mean square of the channels' ratios, and the same two standard errors up; NaN where nothing is known."""
    squares = squared(moments)
    known = np.isfinite(squares)
    if not known.any():
        return float("nan"), float("nan")
    pooled = max(float(squares[known].mean()), 0.0)
    error = _error(pooled, float(np.median(moments.n[known])), max(known.sum() / ALIKE, 1.0))
    return float(np.sqrt(pooled)), float(np.sqrt(pooled + 2 * error))


def _error(square: float, n: float, n_tests: float) -> float:
    """Standard error of the mean of `squared` over so many independent channels.

    The variance of a noncentral F with 1 and n − 1 degrees and noncentrality n snr², in these units.
    """
    degrees, away = n - 1, n * square
    var = 2 * ((1 + away) ** 2 + (1 + 2 * away) * (degrees - 2)) / ((degrees - 4) * n**2)
    return float(np.sqrt(var / n_tests))
