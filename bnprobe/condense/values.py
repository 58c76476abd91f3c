"""What is asked of a tensor, and what comes back: plain values that every way of reading shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Affine:
    """The map scale * (x - origin) + offset; each of shape (C,) or (N, C)."""

    origin: Array
    scale: Array
    offset: Array

    def __getitem__(self, part: slice) -> Self:
        """The map of some of the samples."""
        return type(self)(*(v[part] if v.ndim == 2 else v for v in (self.origin, self.scale, self.offset)))

    def on(self, x: Tensor) -> Tensor:
        """The map applied to float64 rows."""
        origin, scale, offset = (
            torch.tensor(v, dtype=torch.float64, device=x.device)[..., None]
            for v in (self.origin, self.scale, self.offset)
        )
        return scale * (x - origin) + offset


@dataclass(frozen=True)
class Share:
    """Which images the histograms count; moments, extremes and the gate always see every value.

    Of the images of a call, numbered i = 0, 1, ..., those with (first + i) divisible by `every`.
    Whoever gives as `first` the number of images seen before counts every `every`-th image of the
    whole stream, however it is cut into calls; with `every` = 1 that is all of them. Nothing is
    scaled: the number of values counted is the histogram's own.
    """

    every: int = 1
    first: int = 0

    def counts(self, image: int) -> bool:
        """Whether an image of the call counts."""
        return (self.first + image) % self.every == 0


WHOLE = Share()


@dataclass(frozen=True)
class Counts:
    """Counts that need a map: positive values of the gate (C,), and values per bin (C, N_BINS).

    The values per bin may be integers: a call's counts are kept until its forward pass has ended well.
    """

    n_positive: Array | None = None
    histogram: Array | None = None


@dataclass(frozen=True)
class Reading:
    """One tensor, condensed: moments per channel, their spread over images, non-finite counts.

    `rows` are the moments of each (sample, channel), shape (N, C); `own` what a layer or RMS norm
    itself computes at each position (see `positions`); `counts` as in `count`. Each is there only
    when asked for.
    """

    moments: Moments
    images: ImageMoments
    n_nonfinite: Array
    counts: Counts
    rows: Moments | None = None
    own: tuple[Moments, Moments] | None = None


@dataclass(frozen=True)
class Own:
    """Ask for the statistics of a norm over channels: its eps, and whether it takes out the mean."""

    eps: float
    centred: bool
