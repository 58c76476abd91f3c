"""Numbers that become images: a sum of pictures of several sizes, in colors that vary as much as those of photographs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bnprobe.experiments.synthesize.inputs import Inputs, smaller
from bnprobe.experiments.synthesize.recipe import UNIT

COARSEST = 2
"""Pixels that the side of the coarsest picture has at least."""

OPPONENT = (
    (1.66 / 3**0.5, 0.45 / 2**0.5, 0.2 / 6**0.5),
    (1.66 / 3**0.5, 0.0, -0.4 / 6**0.5),
    (1.66 / 3**0.5, -0.45 / 2**0.5, 0.2 / 6**0.5),
)
"""Red, green and blue of one unit of gray, of yellow against blue, and of magenta against green: in photographs these three
vary independently, by so much (1.66, .46 and .20 in CIFAR-10, 1.70, .32 and .14 in 32 of ImageNet)."""


@dataclass(frozen=True)
class Pyramid:
    """An image is the sum of `levels` pictures, each of half the side of the one before, enlarged.

    Steps of the same size in each of them move large shapes as easily as small ones; in pixels alone, an optimizer draws
    fine noise. Every image can still be reached. Inputs that are no images have one level.
    """

    inputs: Inputs
    levels: int

    @property
    def sides(self) -> list[torch.Size]:
        """Of the pictures, the finest first."""
        whole = self.inputs.shape[1:]
        if len(whole) != 2:
            return [torch.Size(whole)]
        return [
            smaller(whole, 0.5**i) for i in range(self.levels) if i == 0 or min(whole) * 0.5**i >= COARSEST
        ]

    @property
    def size(self) -> int:
        """Numbers of one image."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        """Numbers of each picture."""
        return [self.inputs.shape[0] * math.prod(side) for side in self.sides]

    def noise(self, n: int, generator: torch.Generator, until: Sequence[int]) -> Tensor:
        """What images start as: values (n, all numbers), in units; pictures finer than `until` are empty."""
        parts = [
            torch.randn(n, size, generator=generator) * _fits(side, until)
            for side, size in zip(self.sides, self._sizes, strict=True)
        ]
        return torch.cat(parts, 1).to(self.inputs.device) / math.sqrt(len(parts))

    def pixels(self, values: Tensor, sides: Sequence[int] | None = None) -> Tensor:
        """Images (n, channels, *sides), within the valid range; without `sides` whole ones.

        Differentiable, also where pixels are clamped: they may come back."""
        channels, size = self.inputs.shape[0], torch.Size(self.inputs.shape[1:] if sides is None else sides)
        parts = torch.split(values, self._sizes, 1)
        total = torch.zeros((), device=values.device)
        for part, side in zip(parts, self.sides, strict=True):
            if _fits(side, size):
                total = total + _enlarged(part.view(len(part), channels, *side), size)
        if channels == len(OPPONENT) and len(size) == 2:
            total = torch.einsum("dc,nchw->ndhw", total.new_tensor(OPPONENT), total)
        free = 0.5 + UNIT * total
        return self.inputs.valid(free.detach()) + (free - free.detach())


def _fits(side: Sequence[int], into: Sequence[int]) -> bool:
    return all(one <= other for one, other in zip(side, into, strict=True))


def _enlarged(picture: Tensor, size: torch.Size) -> Tensor:
    if picture.shape[2:] == size:
        return picture
    found: Tensor = F.interpolate(picture, size=list(size), mode="bilinear")
    return found
