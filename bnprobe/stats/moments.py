"""Moments to the fourth order, with both extremes, that merge exactly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bnprobe.errors import BnprobeError

Array = NDArray[np.float64]

IN_REACH = 1e70
"""Up to here the fourth power of a value, and sums of them, have a float64."""

# Slack of the inequalities below, relative to the largest term: rounding in float64 only.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Moments:
    """Count, mean, central sums of powers and extremes of many variables at once.

    Every field has the same shape (any shape; one entry per variable) and is float64:
    `n` counts values, `mean` is their mean, `m2` `m3` `m4` are sums of (x - mean)^k,
    `low` and `high` the extremes. An empty variable has n = 0, mean = m2 = m3 = m4 = 0,
    low = +inf and high = -inf, so that it is the identity of `merge`.

    Sums are kept and not variances: a variance without its n cannot be merged.
    """

    n: Array
    mean: Array
    m2: Array
    m3: Array
    m4: Array
    low: Array
    high: Array

    def __repr__(self) -> str:
        return f"Moments(shape {self.shape}, {self.n.sum():,.0f} values)"

    def __post_init__(self) -> None:
        if len({np.shape(value) for value in vars(self).values()}) != 1:
            shapes = {name: np.shape(value) for name, value in vars(self).items()}
            raise BnprobeError(f"Moments need one shape for every field, got {shapes}.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variables."""
        return self.mean.shape

    @classmethod
    def empty(cls, shape: int | tuple[int, ...]) -> Self:
        """Nothing seen yet: the identity of `merge`."""
        zeros = np.zeros(shape)
        return cls(zeros, zeros, zeros, zeros, zeros, np.full(shape, np.inf), np.full(shape, -np.inf))

    @classmethod
    def of(cls, values: Any, axis: int = 0) -> Self:
        """Moments of `values` over `axis`; non-finite values are left out (count them apart)."""
        x = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0)
        seen = np.isfinite(x)
        n = seen.sum(axis=0).astype(np.float64)
        x0 = np.where(seen, x, 0.0)
        mean = x0.sum(axis=0) / np.maximum(n, 1)
        d = np.where(seen, x - mean, 0.0) if x.size else x0
        d2 = d * d
        return cls(
            n,
            mean,
            d2.sum(axis=0),
            (d2 * d).sum(axis=0),
            (d2 * d2).sum(axis=0),
            np.where(seen, x, np.inf).min(axis=0, initial=np.inf),
            np.where(seen, x, -np.inf).max(axis=0, initial=-np.inf),
        )

    def merge(self, other: Self) -> Self:
        """Moments of both sets of values together."""
        if self.shape != other.shape:
            raise BnprobeError(f"Cannot merge moments of shapes {self.shape} and {other.shape}.")
        return self.stack([self, other]).pool()

    @classmethod
    def stack(cls, parts: list[Self]) -> Self:
        """Several moments as one, along a new first axis."""
        # np.array and not np.stack, which takes five times as long for a few short arrays
        return cls(*(np.array([getattr(part, name) for part in parts]) for name in _FIELDS))

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Several moments as one, along their first axis."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def pool(self, axis: int = 0) -> Self:
        """Moments of the union over `axis`: the only merge formula, for two parts or many.

        The central sums of each part are moved to the common mean and added,
        sum (x - m)^k = sum over j of binomial(k, j) (mean - m)^(k-j) M_j,
        which is Chan, Golub & LeVeque 1983 and Pebay 2008 (SAND2008-6212) without the pairing.
        """
        n = self.n.sum(axis=axis)
        divisor = np.maximum(n, 1)
        mean = (self.n * self.mean).sum(axis=axis) / divisor
        # n*mean may overflow its last digits when the data lie far from zero: one correction
        # step puts the mean of the deviations, not of the values, in charge of the last digits.
        mean = mean + (self.n * (self.mean - np.expand_dims(mean, axis))).sum(axis=axis) / divisor
        d = np.where(self.n > 0, self.mean - np.expand_dims(mean, axis), 0.0)
        d2 = d * d
        return type(self)(
            n,
            mean,
            (self.m2 + self.n * d2).sum(axis=axis),
            (self.m3 + 3 * d * self.m2 + self.n * d2 * d).sum(axis=axis),
            (self.m4 + 4 * d * self.m3 + 6 * d2 * self.m2 + self.n * d2 * d2).sum(axis=axis),
            self.low.min(axis=axis, initial=np.inf),
            self.high.max(axis=axis, initial=-np.inf),
        )

    def affine(self, scale: Any, offset: Any, origin: Any = 0.0) -> Self:
        """Moments of scale * (x - origin) + offset, which broadcast against the variables.

        Exact: an affine map moves and scales, so every field follows. A negative scale swaps
        the extremes and flips the third moment. Where the map itself is not finite, nothing
        finite comes out, and the result there is empty.
        """
        shape = self.shape
        a, b, o = (np.broadcast_to(np.asarray(v, dtype=np.float64), shape) for v in (scale, offset, origin))
        some = (self.n > 0) & np.isfinite(a) & np.isfinite(b) & np.isfinite(o)
        a, b, o = (np.where(some, v, 0.0) for v in (a, b, o))
        ends = [a * np.where(some, end - o, 0.0) + b for end in (self.low, self.high)]
        return type(self)(
            np.where(some, self.n, 0.0),
            np.where(some, a * (self.mean - o) + b, 0.0),
            a**2 * self.m2,
            a**3 * self.m3,
            a**4 * self.m4,
            np.where(some, np.minimum(*ends), np.inf),
            np.where(some, np.maximum(*ends), -np.inf),
        )

    def reshape(self, *shape: int) -> Self:
        """The same variables in another shape."""
        return type(self)(*(getattr(self, field.name).reshape(shape) for field in fields(self)))

    @property
    def var_population(self) -> Array:
        """Variance with divisor n; NaN where nothing was seen."""
        return ratio(self.m2, self.n)

    @property
    def var_unbiased(self) -> Array:
        """Variance with divisor n - 1; NaN where fewer than two values were seen."""
        return ratio(self.m2, self.n - 1)

    @property
    def mean_seen(self) -> Array:
        """The mean; NaN where nothing was seen."""
        return np.where(self.n > 0, self.mean, np.nan)

    @property
    def skewness(self) -> Array:
        """Third standardized moment, sqrt(n) m3 / m2^1.5; NaN for a constant variable."""
        # In powers of the deviation, not of its square: m2**1.5 underflows for tiny scales.
        sd = np.sqrt(self.var_population)
        return ratio(ratio(self.m3, self.n * sd), sd * sd)

    @property
    def kurtosis_excess(self) -> Array:
        """Fourth standardized moment less the 3 of a Gaussian; NaN for a constant variable."""
        var = self.var_population
        return ratio(ratio(self.m4, self.n * var), var) - 3.0

    def check_sane(self, where: str = "moments") -> Self:
        """Raise unless the inequalities that every real sample obeys hold.

        low <= mean <= high; variance <= (high - low)^2 / 4 (Popoviciu 1935);
        kurtosis >= skewness^2 + 1 (Pearson 1916). They need no oracle, so they are asked of
        every statistic made in tests and of every recording that is loaded. Of values beyond
        IN_REACH, or all nearer to zero than its inverse, sums of powers may have left the range of
        float64: of them only count, mean and extremes are asked, and that variances are not negative.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            some = self.n > 0
            largest = np.maximum(-self.low, self.high)  # -inf of nothing
            known = largest <= IN_REACH
            m2, m3, m4 = (
                np.where(known, m, 0.0) / np.maximum(self.n, 1) for m in (self.m2, self.m3, self.m4)
            )
            fields = np.isfinite((self.n, self.mean, m2, m3, m4))
            self._demand(where, "every field is finite", fields.all(axis=0))
            self._demand(where, "n >= 0 and whole", (self.n >= 0) & (self.n == np.floor(self.n)))
            slack = ROUNDING * largest
            self._demand(where, "low <= mean", ~some | (self.mean >= self.low - slack))
            self._demand(where, "mean <= high", ~some | (self.mean <= self.high + slack))
            # in units of the largest value, whose sixth power may have no float64
            exact = known & (largest >= 1 / IN_REACH)
            unit = np.where(exact, largest, 1.0)
            width = np.where(exact, self.high / unit - self.low / unit, 0.0)
            var = np.where(exact, m2, 0.0) / unit / unit
            m3, m4 = (np.where(exact, m, 0.0) / unit / unit / unit for m in (m3, m4 / unit))
            self._demand(where, "variance >= 0", ~(m2 < 0))
            self._demand(where, "variance <= (high - low)^2 / 4", var <= (width / 2 + ROUNDING) ** 2)
            pearson = m4 * var * (1 + 1e-6) - m3**2 - var**3
            self._demand(where, "kurtosis >= skewness^2 + 1", pearson >= -1e-6 * var**3 - ROUNDING**6)
        return self

    def _demand(self, where: str, law: str, holds: Any) -> None:
        if not np.all(holds):
            at = np.argwhere(~np.asarray(holds))[0].tolist()
            raise BnprobeError(f"{where}: {law} is violated at {at}; no sample of values has such moments.")


_FIELDS = tuple(field.name for field in fields(Moments))


def ratio(top: Any, bottom: Any) -> Array:
    """top / bottom, elementwise; NaN where bottom is not positive."""
    missing = np.full(np.broadcast(top, bottom).shape, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(top, bottom, out=missing, where=np.asarray(bottom) > 0)
    return missing
