"""How the values of one image differ from those of the next: what an honest standard error needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array, Moments, ratio


@dataclass(frozen=True)
class ImageMoments:
    """Spread over images of an image's mean and of its mean square, per channel.

    For image i of a channel, a_i is the mean over positions of (x - origin) and b_i the mean of
    (x - origin)^2. Kept are the number of images `n`, the means of a and b, their central sums
    of squares `aa` and `bb` and of products `ab`; all of shape (C,), float64. With these the
    error of a mean *and* of a mean square about any point can be given, counting images and not
    pixels: pixels of one image are correlated, so sigma / sqrt(N H W) is wrong by the design
    effect. Images count alike, whatever their size.
    """

    origin: Array
    n: Array
    a: Array
    b: Array
    aa: Array
    bb: Array
    ab: Array

    def __repr__(self) -> str:
        return f"ImageMoments(shape {self.n.shape}, {self.n.max(initial=0):,.0f} samples)"

    def __post_init__(self) -> None:
        if len({np.shape(value) for value in vars(self).values()}) != 1:
            shapes = {name: np.shape(value) for name, value in vars(self).items()}
            raise BnprobeError(f"ImageMoments need one shape for every field, got {shapes}.")

    @classmethod
    def empty(cls, origin: Array) -> Self:
        """No image seen yet; squares will be taken about `origin`, shape (C,)."""
        zeros = np.zeros_like(origin)
        return cls(origin, zeros, zeros, zeros, zeros, zeros, zeros)

    @classmethod
    def of(cls, rows: Moments, origin: Array) -> Self:
        """From the moments of each image's own values, shape (N images, C)."""
        some = rows.n > 0
        n = some.sum(axis=0).astype(np.float64)
        d = np.where(some, rows.mean - origin, 0.0)
        square = np.where(some, ratio(rows.m2, rows.n) + d * d, 0.0)
        a, b = (v.sum(axis=0) / np.maximum(n, 1) for v in (d, square))
        da, db = (np.where(some, v - mean, 0.0) for v, mean in ((d, a), (square, b)))
        return cls(origin, n, a, b, (da * da).sum(axis=0), (db * db).sum(axis=0), (da * db).sum(axis=0))

    @classmethod
    def of_values(cls, values: Moments, origin: Array) -> Self:
        """When each image holds one value (inputs of shape (N, C)): from the moments of the values.

        With d = mean - origin and e = x - mean: a = d + e and b = d^2 + 2 d e + e^2.
        """
        n = np.maximum(values.n, 1)
        d = np.where(values.n > 0, values.mean - origin, 0.0)
        ab = 2 * d * values.m2 + values.m3
        bb = 4 * d**2 * values.m2 + 4 * d * values.m3 + values.m4 - values.m2**2 / n
        return cls(origin, values.n, d, d**2 + values.m2 / n, values.m2, np.maximum(bb, 0.0), ab)

    def about(self, origin: Array) -> Self:
        """The same images, with squares taken about another point.

        a' = a - t and b' = b - 2 t a + t^2 with t = origin' - origin: linear, hence exact.
        """
        t = origin - self.origin
        with np.errstate(over="ignore", invalid="ignore"):
            return type(self)(
                origin,
                self.n,
                np.where(self.n > 0, self.a - t, 0.0),
                np.where(self.n > 0, self.b - 2 * t * self.a + t * t, 0.0),
                self.aa,
                np.maximum(self.bb - 4 * t * self.ab + 4 * t * t * self.aa, 0.0),
                self.ab - 2 * t * self.aa,
            )

    def merge(self, other: Self) -> Self:
        """Both sets of images together, about the origin of `self`."""
        if not np.array_equal(self.origin, other.origin):
            other = other.about(self.origin)
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        both = self.n * share
        da, db = other.a - self.a, other.b - self.b
        return type(self)(
            self.origin,
            n,
            self.a + da * share,
            self.b + db * share,
            self.aa + other.aa + da * da * both,
            self.bb + other.bb + db * db * both,
            self.ab + other.ab + da * db * both,
        )

    def at_most(self, n: float) -> Self:
        """The same means, and the same variances between images, as if of no more than `n` images."""
        kept = np.minimum(self.n, n)
        if np.array_equal(kept, self.n):
            return self
        share = np.where(self.n > n, ratio(n - 1, self.n - 1), 1.0)
        aa, bb, ab = (square * share for square in (self.aa, self.bb, self.ab))
        return replace(self, n=kept, aa=aa, bb=bb, ab=ab)

    @property
    def var_between(self) -> Array:
        """Variance between images of an image's mean, divisor n - 1; NaN below two images."""
        return ratio(self.aa, self.n - 1)

    def var_of_square_about(self, point: Array) -> Array:
        """Variance between images of the mean of (x - point)^2, divisor n - 1; NaN below two images."""
        return ratio(self.about(point).bb, self.n - 1)
