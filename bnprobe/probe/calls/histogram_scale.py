"""The bins of a site's histograms, and the share of values that they count: fixed once, so that counts can be added."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bnprobe.probe.calls.vectors import Vectors
from bnprobe.reductions import Affine, Share
from bnprobe.stats import Moments
from bnprobe.stats.moments import Array

COUNTED_WHOLE = 1 << 12
"""Values per channel up to which a site's histograms count everything; see `share_of`."""

COUNTED_EVERY = 4
"""From then on they count every 4th sample: counting a value costs more than reading it."""


@dataclass(frozen=True)
class HistogramScale:
    """What a site counts against, fixed at its first call so that counts add; each of shape (C,).

    `centre` and `scale` place the histogram of the input; they are the running statistics where
    the layer has usable ones, else the first batch's. `beta` and `gamma` place the output's.
    """

    centre: Array
    scale: Array
    beta: Array
    gamma: Array

    @cached_property
    def input_bins(self) -> Affine:
        """The map that places the histogram of the input."""
        return Affine(self.centre, 1 / self.scale, np.zeros_like(self.centre))

    @cached_property
    def itself(self) -> Affine:
        """The map that changes nothing."""
        zeros = np.zeros_like(self.beta)
        return Affine(zeros, zeros + 1, zeros)

    @cached_property
    def output_bins(self) -> Affine:
        """The map that places the histogram of the output."""
        return Affine(self.beta, 1 / unit(self.gamma), np.zeros_like(self.beta))


def share_of(n_values: float, n_images: int) -> Share:
    """Which samples of the next call the histograms of a site count, after `n_values` per channel and `n_images`.

    Everything until COUNTED_WHOLE values of a channel were seen, so that small data lose nothing; then
    every fourth image of the stream. Moments and extremes always see everything.
    """
    return Share() if n_values < COUNTED_WHOLE else Share(COUNTED_EVERY, n_images % COUNTED_EVERY)


def stored_reference(initial: Vectors, vectors: Vectors, eps: float) -> HistogramScale | None:
    """Bins from the running statistics; None if the layer has none.

    They come before any batch, so that recordings of one checkpoint count against the same scale.
    """
    mean, var = initial.running_mean, initial.running_var
    if mean is None or var is None:
        return None
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(mean) & np.isfinite(var) & (var + eps > 0)
        # a channel with unusable statistics gets the same scale in every recording
        return _reference(vectors, np.where(usable, mean, 0.0), np.sqrt(np.where(usable, var + eps, 1.0)))


def first_reference(vectors: Vectors, eps: float, seen: Moments) -> HistogramScale:
    """Bins from the first batch."""
    return _reference(vectors, seen.mean, np.sqrt(seen.m2 / np.maximum(seen.n, 1) + eps))


def _reference(vectors: Vectors, centre: Array, sd: Array) -> HistogramScale:
    gamma = np.ones_like(centre) if vectors.gamma is None else vectors.gamma
    beta = np.zeros_like(centre) if vectors.beta is None else vectors.beta
    return HistogramScale(centre, unit(sd), np.where(np.isfinite(beta), beta, 0.0), gamma)


def unit(scale: Array) -> Array:
    """A usable positive scale: |scale|, or 1 where it is zero or not finite."""
    return np.where(np.isfinite(scale) & (scale != 0), np.abs(scale), 1.0)
