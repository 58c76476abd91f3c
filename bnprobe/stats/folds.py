"""Whole batches dealt to folds: the errors that they give hold also where samples of a batch are not independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.jackknife import LeftOut
from bnprobe.stats.moments import Array

N_FOLDS = 20
"""Enough for a t of 19 degrees; the numbers of a channel in all folds take less room than its two histograms."""


@dataclass(frozen=True)
class Folds:
    """Sums over the images of each fold of an image's mean and mean square, per channel.

    Batch j of a site, counted from 0, belongs to fold j mod N_FOLDS with all of its images, so that whatever
    ties the images of a batch together (copies of one photo, rows of one sample) stays inside a fold, and
    folds are independent where batches are. For image i, as in `ImageMoments`, a_i is the mean over positions of
    (x - origin) and b_i the mean of (x - origin)^2. `n` counts the images of a fold that had a finite value, `a` and
    `b` are the sums of a_i and b_i; all of shape (K, C), with K up to N_FOLDS. `within` (C,) is the sum over
    images of (a_i - mean of a over its batch)^2, `n_batches` the number of batches with any image.
    """

    origin: Array
    n: Array
    a: Array
    b: Array
    within: Array
    n_batches: int

    def __repr__(self) -> str:
        k, c = self.n.shape
        return f"Folds({k} of {c:,} channels, {self.n_batches:,} batch{'es' * (self.n_batches != 1)})"

    def __post_init__(self) -> None:
        c, k = self.origin.shape, self.n.shape
        fits = len(c) == 1 and len(k) == 2 and k[1:] == c and k[0] == min(self.n_batches, N_FOLDS)
        if not fits or self.a.shape != k or self.b.shape != k or self.within.shape != c:
            shapes = {name: np.shape(value) for name, value in vars(self).items()}
            raise BnprobeError(
                f"Folds need origin and within (C,), and n, a and b (K, C) with as many folds as batches, "
                f"{N_FOLDS} at most, got {shapes}."
            )

    def about(self, origin: Array) -> Self:
        """The same images, with both sums taken about another point: a' = a - n t and b' = b - 2 t a + n t^2."""
        t = origin - self.origin
        with np.errstate(over="ignore", invalid="ignore"):
            a, b = self.a - self.n * t, self.b - 2 * t * self.a + self.n * t * t
        return replace(self, origin=origin, a=np.where(self.n > 0, a, 0.0), b=np.where(self.n > 0, b, 0.0))

    def merge(self, other: Self) -> Self:
        """Both sets of batches, those of `other` after those of `self`, as if all had come in one go.

        So the first batch of `other` goes to the fold after that of the last batch of `self`: many parts of one batch
        fill many folds.
        """
        if not np.array_equal(self.origin, other.origin):
            other = other.about(self.origin)
        n_batches = self.n_batches + other.n_batches
        after = (np.arange(len(other.n)) + self.n_batches) % N_FOLDS
        n, a, b = np.zeros((3, min(n_batches, N_FOLDS), len(self.origin)))
        for total, mine, theirs in ((n, self.n, other.n), (a, self.a, other.a), (b, self.b, other.b)):
            total[: len(mine)] += mine
            total[after] += theirs
        return type(self)(self.origin, n, a, b, self.within + other.within, n_batches)

    def leave_out(self, statistic: Callable[[Array, Array], Array]) -> LeftOut:
        """A function of the channels' means and mean squares about the origin, over images: of all, and without each fold.

        `statistic` is given both with shape (C,), and once more with a row for each fold left out. Images count alike,
        whatever their size.
        """
        total = [sums.sum(axis=0) for sums in (self.n, self.a, self.b)]
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            whole = statistic(total[1] / total[0], total[2] / total[0])
            n, a, b = (all_ - one for all_, one in zip(total, (self.n, self.a, self.b), strict=True))
            without = statistic(a / n, b / n)
        if without.shape == self.n.shape:
            return LeftOut(whole, without, self.n)
        # of all channels together: an image counts that had a value in any
        images = self.n.max(axis=1).reshape(-1, *np.ones(without.ndim - 1, int))
        return LeftOut(whole, without, np.broadcast_to(images, without.shape))

    def check_sane(self, where: str = "folds") -> Self:
        """Raise unless images are counted, and no mean square is below the square of a mean."""
        counts = (self.n >= 0) & (self.n == np.floor(self.n))
        # sums that overflowed are infinite, and say nothing
        known = np.isfinite(self.a) & np.isfinite(self.b)
        with np.errstate(over="ignore", invalid="ignore"):
            possible = ~known | (self.a**2 <= self.n * self.b * (1 + ROUNDING))
        if not counts.all() or not possible.all() or bool((self.within < 0).any()):
            raise BnprobeError(f"{where}: these cannot be sums over images.")
        return self


ROUNDING = 1e-4
"""Slack of an inequality, relative: engines add up a short row in float32."""
