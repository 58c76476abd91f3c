"""What is asked of a tensor: plain frozen values that every engine understands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Affine:
    """The map scale * (x - origin) + offset; each of shape (C,) or (N, C)."""

    origin: Array
    scale: Array
    offset: Array

    def __getitem__(self, part: slice | NDArray[np.int64]) -> Self:
        """The map of some of the samples."""
        if self.scale.ndim == 1 and self.origin.ndim == 1 and self.offset.ndim == 1:
            return self
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
class PerSample:
    """Ask for the statistics of a norm over channels: its eps, and whether it takes out the mean."""

    eps: float
    centred: bool


class ReadRequest(NamedTuple):
    """What one read of a tensor x of shape (N, C, P) must bring, beside its moments and non-finite counts.

    `origin` (C,) is the point about which an image's mean square is taken; None takes the channel's own mean.
    `gate` asks for the count of positive gate(x), `bins` for the histogram of bins(x) over the images of
    `share`; `per_sample` for what a layer or RMS norm itself computes at each position, `keep_rows` for the
    moments of each (sample, channel).

    A tuple, because one is made at every call of a norm: a frozen dataclass takes four times as long to make.
    """

    origin: Array | None = None
    gate: Affine | None = None
    bins: Affine | None = None
    share: Share = WHOLE
    per_sample: PerSample | None = None
    keep_rows: bool = False


BASIC = ReadRequest()
"""Nothing that has to be asked for."""
