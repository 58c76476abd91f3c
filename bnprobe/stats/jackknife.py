"""The standard error of any statistic, by what it is without each group of the data in turn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bnprobe.stats.moments import Array


class Estimate(NamedTuple):
    """A standard error, and the degrees of freedom of it; of one shape."""

    se: Array
    degrees: Array


class LeftOut(NamedTuple):
    """A statistic that is `whole` of all data, and `without[k]` of all but group k, which has n[k] members.

    `without` and `n` have the shape of `whole` with an axis of K groups before it; a group without members is none.
    """

    whole: Array
    without: Array
    n: Array


def jackknife(whole: Array, without: Array, n: Array) -> Estimate:
    """The error of a statistic, given as in `LeftOut`; NaN below two groups.
    For a mean this is sum((m_k - m)^2 n_k / (n - n_k)) / K, which is unbiased whatever the sizes of the
       groups, and sum((m_k - m)^2) / (K (K - 1)) for equal ones.

       With pseudo-values h x - (h - 1) x_k, h = n / n_k, about their own mean: Busing, Meijer & van der Leeden 1999,
       doi:10.1023/A:1008800423698, for groups of unequal size; Quenouille 1956 and Tukey 1958 for equal ones.
    """
    groups = (n > 0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = n / n.sum(axis=0)
        gap = np.where(n > 0, whole - without, 0.0)
        odds = (1 - share) / share
        from_mean = odds * gap - ((1 - share) * gap).sum(axis=0)
        # 0 / 0 of a single group, which leaves nothing without it
        square = np.where(n > 0, from_mean**2 / odds, 0.0).sum(axis=0) / groups
    return Estimate(np.sqrt(square), np.where(groups > 1, groups - 1.0, np.nan))
