"""Shares of independent trials, each with its interval: how much larger one is at least."""

from __future__ import annotations

from math import hypot


def least_difference(share: float, low: float, other: float, other_high: float) -> float:
    """Lower end of the interval of `share - other`, from the lower end of the one's interval and the upper of the other's.

    Of Wilson intervals of 95% that is Newcombe's, of 95% too (1998, Statistics in Medicine 17, method 10). Two intervals
    that overlap are no proof that two shares are alike: they lie apart only where the difference is beyond 99%.
    """
    return share - other - hypot(share - low, other_high - other)
