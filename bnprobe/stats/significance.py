"""Tests: p by Student's t, and q, a false discovery rate, which is p adjusted for the number of tests.

scipy.stats takes half a second to import, which a check of weights need not wait: it is imported when asked.
"""

from __future__ import annotations

import numpy as np

from bnprobe.stats.moments import Array

SIGNIFICANT = 0.01
"""q below which a difference is called significant: beyond sampling error, at a false discovery rate of 1%. Of any size."""


def two_sided(z: Array, degrees: Array) -> Array:
    """Chance of so many standard errors or more, either way, by Student's t with `degrees` of freedom; same shape.

    0 where z is infinite, NaN where z is NaN or no degree of freedom is left.
    """
    p = np.full(z.shape, np.nan)
    tested = ~np.isnan(z) & (degrees > 0)
    if tested.any():
        from bnprobe.stats.scipy_lazy import stats

        p[tested] = 2 * stats.t.sf(np.abs(z[tested]), degrees[tested])
    return p


def upper_quantile(degrees: Array) -> Array:
    """95% quantile of Student's t with `degrees` of freedom; same shape, NaN where none is left."""
    quantile = np.full(degrees.shape, np.nan)
    known = degrees > 0
    if known.any():
        from bnprobe.stats.scipy_lazy import stats

        different, places = np.unique(degrees[known], return_inverse=True)  # mostly as many in all channels
        quantile[known] = stats.t.ppf(0.95, different)[places]
    return quantile


def adjusted(p: Array) -> Array:
    """q values of one family of tests, same shape: of all below q, on average at most a share q does not differ.

    Benjamini & Hochberg 1995, for tests that are independent or positively dependent. NaN is no test, and stays NaN.
    """
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        from bnprobe.stats.scipy_lazy import stats

        q[tested] = stats.false_discovery_control(np.clip(p[tested], 0, 1))
    return q
