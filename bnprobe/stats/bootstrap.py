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

    A difference that only a few samples show is drawn too often alike: with four samples changed for the worse and none
    for the better, the plain bootstrap excludes zero while the sign test has p = .125. So one sample with the largest
    difference and one with its opposite are added before resampling, as Agresti & Min 2005 add to the counts of matched
    pairs (doi:10.1002/sim.1781). Without any difference the interval is (0, 0); NaN without samples.
    """
    n = len(differences)
    if not n:
        return Interval(np.nan, np.nan)
    largest = float(np.max(np.abs(differences)))
    if largest == 0:
        return Interval(0.0, 0.0)
    rng = np.random.default_rng(seed)
    values, counts = np.unique(np.append(differences, [largest, -largest]), return_counts=True)
    if len(values) <= len(differences) // 4:  # hits and misses: draw how often each value comes up
        drawn = rng.multinomial(n + 2, counts / (n + 2), size=RESAMPLES)
        means = drawn @ values / (n + 2)
    else:
        every = np.append(differences, [largest, -largest])
        rows = max(1, AT_A_TIME // (n + 2))
        parts = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
        means = np.concatenate([every[rng.integers(n + 2, size=(k, n + 2))].mean(axis=1) for k in parts])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
