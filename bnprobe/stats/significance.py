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
    if np.isnan(z).all():
        return np.full(z.shape, np.nan)
    from bnprobe.stats.scipy_lazy import stats

    return np.asarray(2 * stats.t.sf(np.abs(z), degrees))


def as_normal(z: Array, degrees: Array) -> Array:
    """Standard errors, of any sign, that are as rare by the normal distribution as z is by Student's t; same shape."""
    from bnprobe.stats.scipy_lazy import stats

    return np.asarray(stats.norm.isf(stats.t.sf(np.abs(z), degrees)))


def as_student(z: Array, degrees: Array) -> Array:
    """The opposite of `as_normal`."""
    from bnprobe.stats.scipy_lazy import stats

    return np.asarray(stats.t.isf(stats.norm.sf(z), degrees))


def without_skewness(z: Array, skewness: Array) -> Array:
    """z of the log of a spread, nearer to 0 where it says that the spread is small; same shape.

    Where no sample of much contrast was drawn, a mean square and its own error are small together, so that "varies less" is
    found too often. `skewness` is the standard error of the log of this spread, squared, over that of the difference,
    less the same of what it is compared with; below 0 the other one is less certain, and the other sign of z is cautious.
    With g the skewness of a sample's mean square and c its coefficient of variation, Hall 1992 (J. R. Stat. Soc. B 54, 221)
    makes t symmetric by t + g t^2/(3 sqrt n) + g^2 t^3/(27 n) + g/(6 sqrt n), of which the logarithm does c t^2/(2 sqrt n).
    Here g is taken for 3 c, as that of a lognormal is (2 c of a gamma; 2.7 c in the median of a ResNet-20's channels), which
    leaves z + a (1 + z^2) + a^2 z^3/3 with a = c/(2 sqrt n), the error of the log of the standard deviation.
    """
    a, down = np.abs(skewness), -np.abs(z)
    with np.errstate(over="ignore", invalid="ignore"):
        corrected = np.clip(down + a * (1 + down**2) + a**2 * down**3 / 3, down, 0)
        # of the side that is small, and no other, z is too far from 0
        small = np.isfinite(corrected) & (np.sign(z) * np.sign(skewness) < 0)
    return np.where(small, np.sign(z) * -corrected, z)


def upper_quantile(degrees: Array) -> Array:
    """95% quantile of Student's t with `degrees` of freedom; same shape, NaN where none is left."""
    if not (degrees > 0).any():
        return np.full(degrees.shape, np.nan)
    from bnprobe.stats.scipy_lazy import stats

    different, places = np.unique(degrees, return_inverse=True)  # mostly as many in all channels
    return np.asarray(stats.t.ppf(0.95, different)[places].reshape(degrees.shape))


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
