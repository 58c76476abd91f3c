"""Interval of a mean difference between two measurements of the same samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bnprobe.stats.moments import Array

RESAMPLES = 2000
AT_A_TIME = 2_000_000
"""Draws that are held at once; a larger sample is drawn in more parts."""


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it lies on one side of 0."""
        return self.low > 0 or self.high < 0


def paired_interval(differences: Array, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap over samples of the mean of `differences`, one per sample, shape (n,).

    Two corrections keep its level where few samples differ, at the power of a test of matched pairs. A difference that only
    a few show is drawn too often alike: with four samples changed for the worse and none for the better, the plain bootstrap
    excludes zero while the sign test has p = .125. So half a sample with the largest difference, half with its opposite, and
    one without any are added before resampling, as Agresti & Min 2005 add to the counts of matched pairs
    (doi:10.1002/sim.1781). And means of hits and misses lie on a grid, where all of a draw's ties with zero would count
    against a difference: half of them do, as in the mid-P test (Fagerland et al. 2013, doi:10.1186/1471-2288-13-91).
    Without any difference the interval is (0, 0); NaN without samples.
    """
    n = len(differences)
    if not n:
        return Interval(np.nan, np.nan)
    largest = float(np.max(np.abs(differences)))
    if largest == 0:
        return Interval(0.0, 0.0)
    rng = np.random.default_rng(seed)
    added = [largest, -largest, 0.0, 0.0]
    values, counts = np.unique(np.concatenate([differences, differences, added]), return_counts=True)
    if len(values) <= n // 4:  # hits and misses: draw how often each value comes up
        drawn = rng.multinomial(n + 2, counts / counts.sum(), size=RESAMPLES)
        means = drawn @ values / (n + 2)
    else:
        every = np.concatenate([differences, differences, added])
        rows = max(1, AT_A_TIME // (n + 2))
        parts = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
        means = np.concatenate([every[rng.integers(len(every), size=(k, n + 2))].mean(axis=1) for k in parts])
    low, high = _quantiles(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _quantiles(means: Array, shares: list[float]) -> Array:
    """Quantiles in which half of the draws that tie with a value count as below it."""
    values, counts = np.unique(means, return_counts=True)
    below = (np.cumsum(counts) - counts / 2) / len(means)
    return np.interp(shares, below, values)
