"""What is asked of a tensor, and what comes back: plain values that every way of reading shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bnprobe.reductions.packed import BAD, IMAGES_SEEN, N_IMAGES, N_MOMENTS, N_SEEN, images_of, moments_of
from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.moments import Array


def per_sample_array(tensor: Tensor) -> Array:
    """A copy of a tensor as a flat float64 array.

    Copied by torch into memory of numpy's: a tensor that numpy has looked at can never be resized
    again, which would leave a trace on a user's parameter.
    """
    array = np.empty(tensor.numel())
    torch.from_numpy(array).copy_(tensor.detach().reshape(-1))
    return array


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

    @cached_property
    def layout(self) -> tuple[int, int, int, int]:
        """For compiled loops: the addresses of the three, and the distance from sample to sample.

        Of copies that live as long as the map, because a map is mostly used again and again.
        """
        self.__dict__["_held"] = held = [
            np.ascontiguousarray(v, dtype=np.float64) for v in (self.origin, self.scale, self.offset)
        ]
        first, second, third = (v.__array_interface__["data"][0] for v in held)
        return first, second, third, 0 if self.scale.ndim == 1 else self.scale.shape[1]


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

    These three are `packed` in one array (see `condense.packed`), so that a total can add them at
    once. `rows` are the moments of each (sample, channel), shape (N, C); `own` what a layer or RMS
    norm itself computes at each position, packed likewise with its two statistics for channels (see
    `positions`); `counts` as in `count`. Each is there only when asked for.
    """

    packed: Array
    counts: Counts
    rows: Moments | None = None
    packed_own: Array | None = None

    @cached_property
    def moments(self) -> Moments:
        """Moments per channel, shape (C,)."""
        return moments_of(self.packed)

    @cached_property
    def images(self) -> ImageMoments:
        """Spread over images, shape (C,)."""
        return images_of(self.packed)

    @property
    def n_nonfinite(self) -> Array:
        """Non-finite values per channel, shape (C,)."""
        bad: Array = self.packed[BAD]
        return bad

    @property
    def n_values(self) -> float:
        """Finite values of the channel that has most of them."""
        return float(self.packed[N_SEEN].max(initial=0))

    @property
    def n_images(self) -> int:
        """Images that had a finite value in some channel."""
        return int(self.packed[IMAGES_SEEN].max(initial=0))

    @property
    def own(self) -> tuple[Moments, Moments] | None:
        """Distribution of the mean, and of the log variance, each of shape (1,)."""
        if self.packed_own is None:
            return None
        return moments_of(self.packed_own[:, :1]), moments_of(self.packed_own[:, 1:])

    def about(self, origin: Array) -> Self:
        """The same, with the mean square of images taken about another point."""
        rows = self.packed.copy()
        rows[N_MOMENTS : N_MOMENTS + N_IMAGES] = np.array(list(vars(self.images.about(origin)).values()))
        return replace(self, packed=rows)


@dataclass(frozen=True)
class PerSample:
    """Ask for the statistics of a norm over channels: its eps, and whether it takes out the mean."""

    eps: float
    centred: bool
