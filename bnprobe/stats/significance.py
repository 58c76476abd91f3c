"""Tests: p by Student's t, and q, a false discovery rate, which is p adjusted for the number of tests.

By the functions of scipy.special that scipy.stats stands on, where a page waits: to import the latter takes half a second,
as long as the rest.
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
    return 2 * _student_above(np.abs(z), degrees)


def mostly_above(differences: Array) -> float:
    """Chance of differences of pairs, shape (n,), that are above 0 as far as these, were each as often below: one-sided
    signed-rank test (Wilcoxon 1945, doi:10.2307/3001968), without zeros. 1 where nothing differs."""
    from scipy.stats import wilcoxon  # half a second, for experiments that take minutes

    if not differences.any():
        return 1.0
    return float(wilcoxon(differences, alternative="greater").pvalue)


def as_normal(z: Array, degrees: Array) -> Array:
    """Standard errors, of any sign, that are as rare by the normal distribution as z is by Student's t; same shape."""
    from bnprobe.stats.scipy_lazy import special

    return np.asarray(-special.ndtri(_student_above(np.abs(z), degrees)))


def as_student(z: Array, degrees: Array) -> Array:
    """The opposite of `as_normal`."""
    from bnprobe.stats.scipy_lazy import special

    p = special.ndtr(-z)
    # stdtrit has the sign wrong at 0
    return np.where(p > 0, -special.stdtrit(degrees, p), np.inf)


def _student_above(z: Array, degrees: Array) -> Array:
    from bnprobe.stats.scipy_lazy import special

    return np.asarray(special.stdtr(degrees, -z))


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
    from bnprobe.stats.scipy_lazy import special

    different, places = np.unique(degrees, return_inverse=True)  # mostly as many in all channels
    return np.asarray(special.stdtrit(different, 0.95)[places].reshape(degrees.shape))


def fisher_quantile(level: float, between: float, within: float) -> float:
    """The quantile at `level` of Fisher's F with so many degrees of freedom; NaN where one has none."""
    from bnprobe.stats.scipy_lazy import special

    return float(special.fdtri(between, within, level))


def adjusted(p: Array) -> Array:
    """q values of one family of tests, same shape: of all below q, on average at most a share q does not differ.

    Benjamini & Hochberg 1995, for tests that are independent or positively dependent. NaN is no test, and stays NaN.
    """
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    shares = np.clip(p[tested], 0, 1)
    order = np.argsort(shares)
    among = shares[order] * (len(order) / np.arange(1, len(order) + 1))
    # the least that is found among those as large or larger
    found = np.empty(len(order))
    found[order] = np.minimum.accumulate(among[::-1])[::-1]
    q[tested] = found
    return q
