"""How the images of a class lie together: what part of the differences between images the labels explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array, Moments, ratio
from bnprobe.stats.significance import fisher_quantile


@dataclass(frozen=True)
class ClassMoments:
    """Images and their mean by class, per channel, and the spread within classes.

    For K classes and C channels: `labels` (K,) whole numbers in rising order, `n` (K,) images of each,
    `mean` (K, C) the mean over its images of an image's mean, `within` (C,) the sum over all images of
    the squared distance of an image's mean from its class's. All float64. Every image counts alike,
    whatever its size.
    """

    labels: Array
    n: Array
    mean: Array
    within: Array

    def __repr__(self) -> str:
        return f"ClassMoments({len(self.labels):,} classes, {self.n.sum():,.0f} samples, {self.within.size:,} channels)"

    def __post_init__(self) -> None:
        k = self.labels.shape
        if len(k) != 1 or self.n.shape != k or self.mean.shape != (*k, *self.within.shape):
            raise BnprobeError(
                f"ClassMoments need labels and n of shape (K,), mean (K, C) and within (C,), got {k}, "
                f"{self.n.shape}, {self.mean.shape}, {self.within.shape}."
            )
        if np.any(np.diff(self.labels) <= 0) or np.any(self.labels != np.floor(self.labels)):
            raise BnprobeError("ClassMoments need labels that are whole numbers, each once, in rising order.")

    @classmethod
    def empty(cls, n_channels: int) -> Self:
        """No class seen yet: the identity of `merge`."""
        nothing = np.zeros(0)
        return cls(nothing, nothing, np.zeros((0, n_channels)), np.zeros(n_channels))

    @classmethod
    def of(cls, rows: Moments, labels: Array) -> Self:
        """From the moments of each image's own values, shape (N images, C), and their N labels.

        Images with a negative label have none and are left out, and so are images that had no finite
        value in some channel.
        """
        used = (labels >= 0) & (rows.n > 0).all(axis=1)
        means, numbers = rows.mean[used], labels[used]
        known, which = np.unique(numbers, return_inverse=True)
        n = np.bincount(which, minlength=len(known)).astype(np.float64)
        members = which[None, :] == np.arange(len(known))[:, None]
        mean = members @ means / n[:, None]
        return cls(known.astype(np.float64), n, mean, ((means - mean[which]) ** 2).sum(axis=0))

    def merge(self, other: Self) -> Self:
        """Images of both, class by class: Chan, Golub & LeVeque 1983 for each that both have."""
        labels = np.union1d(self.labels, other.labels)
        (mine, first), (theirs, second) = (part._among(labels) for part in (self, other))
        n = mine + theirs
        d = second - first
        share = (theirs / n)[:, None]
        apart = (d * d * mine[:, None] * share).sum(axis=0)
        return type(self)(labels, n, first + d * share, self.within + other.within + apart)

    def _among(self, labels: Array) -> tuple[Array, Array]:
        """n and mean for a longer list of labels, zero where there were none."""
        at = np.searchsorted(labels, self.labels)
        n, mean = np.zeros(len(labels)), np.zeros((len(labels), len(self.within)))
        n[at], mean[at] = self.n, self.mean
        return n, mean

    @property
    def n_images(self) -> float:
        """Images with a label."""
        return float(self.n.sum())

    @property
    def between(self) -> Array:
        """Sum over images of the squared distance of their class's mean from the mean of all; shape (C,)."""
        n = self.n[:, None]
        mean = ratio((n * self.mean).sum(axis=0), self.n_images)
        total: Array = (n * (self.mean - mean) ** 2).sum(axis=0)
        return total

    @property
    def share_raw(self) -> Array:
        """Share of the variance between images that lies between classes, shape (C,).

        Labels dealt at random already give (K - 1)/(n_images - 1). NaN where images do not differ.
        """
        return ratio(self.between, self.between + self.within)

    @property
    def share(self) -> Array:
        """The same without what chance gives: 0 on average for labels dealt at random, 1 at most.

        (between - (K - 1) within / (n_images - K)) / (between + within), Kelley 1935 (epsilon squared).
        Not clipped, so it may fall below 0 by chance. NaN for one class, and for one image in each.
        """
        degrees = self.n_images - len(self.n)
        if degrees < 1 or len(self.n) < 2:
            return np.full(self.within.shape, np.nan)
        chance = (len(self.n) - 1) * self.within / degrees
        return ratio(self.between - chance, self.between + self.within)

    @property
    def interval(self) -> tuple[Array, Array]:
        """Both ends of the 95% interval of `share`, shape (C,); NaN where it is.

        With F the mean square between classes over that within, `share` is (K - 1)(F - 1) / ((K - 1) F + n_images - K).
        Where classes are drawn from many, F over what it is on average has an F distribution, so that the ends are those of
        F over its quantiles, exactly for Gaussian values and classes of equal size.
        """
        k, degrees = len(self.n), self.n_images - len(self.n)
        if degrees < 1 or k < 2:
            return np.full(self.within.shape, np.nan), np.full(self.within.shape, np.nan)
        ends = []
        for level in (0.975, 0.025):
            # F over the quantile, as if so much less lay between classes
            between = self.between / fisher_quantile(level, k - 1, degrees)
            ends.append(ratio(between - (k - 1) * self.within / degrees, between + self.within))
        return ends[0], ends[1]

    def check_sane(self, where: str = "classes") -> Self:
        """Raise unless counts are whole and positive and sums of squares are not negative."""
        whole = (self.n >= 1) & (self.n == np.floor(self.n)) & (self.labels >= 0)
        if not whole.all() or not np.isfinite(self.mean).all() or not (self.within >= 0).all():
            raise BnprobeError(f"{where}: no images have such statistics by class.")
        return self
