"""What comes back from reading a tensor: plain values that every engine makes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from bnprobe.reductions.packing import images_of, moments_of, with_images
from bnprobe.stats import ImageMoments, Moments
from bnprobe.stats.fields import IMAGES, NONFINITE, N
from bnprobe.stats.moments import Array


def float64_copy(tensor: Tensor) -> Array:
    """A copy of a tensor as a flat float64 array.

    Copied by torch into an array of numpy's: a tensor that numpy has looked at can never be resized
    again, which would leave a trace on a user's parameter.
    """
    array = np.empty(tensor.numel())
    torch.from_numpy(array).copy_(tensor.detach().reshape(-1))
    return array


class Counts(NamedTuple):
    """Counts that need a map: positive values of the gate (C,), and values per bin (C, N_BINS).

    The values per bin may be integers: a call's counts are kept until its forward pass has ended well.
    """

    n_positive: Array | None = None
    histogram: Array | None = None


class Tokens(NamedTuple):
    """What a layer or RMS norm itself computes, position by position, float64 and where the tensor is.

    `mean` and `log_square` (N, P): the mean over channels, and the log of what the norm divides by the root of.
    `sums` (2, C): over all positions whose values are finite, of z, which is the input after subtracting and dividing, and
    of z squared.
    """

    mean: Tensor
    log_square: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Reading:
    """One tensor, reduced: moments per channel, their spread over images, and sums.

    These are `packed` in one array (see `reductions.packing`), so that a total can add them at once.
    `rows` are the moments of each (sample, channel), shape (N, C); `packed_per_sample` what a layer or RMS
    norm itself computes at each position, packed likewise with its two statistics for channels (see
    `reference.positions`), and `tokens` the same position by position; `counts` as in `count`. Each is there only when
    asked for.
    """

    packed: Array
    counts: Counts
    rows: Moments | None = None
    packed_per_sample: Array | None = None
    tokens: Tokens | None = None

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
        nonfinite: Array = self.packed[NONFINITE]
        return nonfinite

    @property
    def n_values(self) -> float:
        """Finite values of the channel that has most of them."""
        return float(self.packed[N].max(initial=0))

    @cached_property
    def n_images(self) -> int:
        """Images that had a finite value in some channel."""
        return int(self.packed[IMAGES].max(initial=0))

    @property
    def per_sample(self) -> tuple[Moments, Moments] | None:
        """Distribution of the mean, and of the log variance, each of shape (1,)."""
        if self.packed_per_sample is None:
            return None
        return moments_of(self.packed_per_sample[:, :1]), moments_of(self.packed_per_sample[:, 1:])

    def without_rows(self) -> Reading:
        """The same without the moments of each (sample, channel)."""
        return replace(self, rows=None)

    def about(self, origin: Array) -> Self:
        """The same, with the mean square of images taken about another point."""
        return replace(self, packed=with_images(self.packed, self.images.about(origin)))
