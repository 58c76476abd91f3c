"""Images on their way from noise: one step of Adam after another, for one way to make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnprobe.errors import BnprobeError
from bnprobe.experiments.outputs import deciding
from bnprobe.experiments.synthesize.inputs import Inputs, smaller
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.recipe import UNIT, Recipe, Way
from bnprobe.experiments.synthesize.stored import Stored

SMALL = 1e-8
FINEST = 16
"""Blots along the side of an image at least: larger ones would be shapes already."""
PERMUTATION, NOISE, MOVES = range(3)
"""Streams of random numbers."""


@dataclass
class Drawing:
    """Pixels (n, *shape), about 0 to 1, both averages of Adam, and what was done so far."""

    pixels: Tensor
    mean: Tensor
    square: Tensor
    step: int = 0
    seconds: float = 0.0
    age: int = 0
    """Steps since the averages were empty."""

    @classmethod
    def of(cls, pixels: Tensor, step: int = 0, seconds: float = 0.0) -> Drawing:
        """With averages that are still empty."""
        return cls(pixels, torch.zeros_like(pixels), torch.zeros_like(pixels), step, seconds)


@dataclass(frozen=True)
class Drawer:
    """Everything that a step needs."""

    model: nn.Module
    inputs: Inputs
    targets: Tensor | None
    way: Way
    norms: Sequence[Stored]
    steps: int
    seed: int
    recipe: Recipe

    def start(self, n: int) -> Drawing:
        """Noise, the same for all ways."""
        return Drawing.of(_resized(clouds(self.inputs, n, self.seed, self.recipe.octaves), self._sides(0)))

    def distances(self) -> Distances:
        """From the statistics of this way."""
        if not self.way.permuted:
            return Distances(self.norms, self.recipe.first)
        generator = seeded(self.seed, PERMUTATION)
        return Distances([norm.permuted(generator) for norm in self.norms], self.recipe.first)

    def advance(self, drawing: Drawing, distances: Distances) -> Drawing:
        """One step further. Raises BnprobeError where the model gives no gradient."""
        sides = self._sides(drawing.step)
        if drawing.pixels.shape[2:] != sides:
            drawing = Drawing.of(_resized(drawing.pixels, sides), drawing.step, drawing.seconds)
        pixels = drawing.pixels.requires_grad_()
        distances.begin()
        chance = seeded(self.seed, MOVES, drawing.step)
        given = self.inputs.of(moved(pixels, self.recipe.shift, chance))
        loss = self._loss(self.model(given), distances)
        if not loss.requires_grad:
            raise BnprobeError(
                f"the output of {type(self.model).__name__} has no gradient with respect to its input, so no image can be "
                "made. Take torch.no_grad and detach() out of its forward."
            )
        if not loss.isfinite():
            raise BnprobeError(
                f"step {drawing.step + 1:,} gives a loss that is not finite, so no image can be made. Pass normalize=, the "
                "mean and std of the model's inputs, and check its weights with bnprobe.check."
            )
        (gradient,) = torch.autograd.grad(loss + self.recipe.roughness * roughness(pixels), pixels)
        return self._stepped(drawing, gradient)

    def shape(self, n: int, step: int) -> tuple[int, ...]:
        """Of n images after so many steps."""
        return (n, self.inputs.shape[0], *self._sides(max(step - 1, 0)))

    def _sides(self, step: int) -> Sequence[int]:
        """Of images at a step: fewer pixels at the start, where they get their large shapes."""
        whole = self.inputs.shape[1:]
        for until, part in self.recipe.stages:
            if len(whole) == 2 and step < until * self.steps:
                return smaller(whole, part)
        return torch.Size(whole)

    def _loss(self, output: object, distances: Distances) -> Tensor:
        """What this way asks for, without what it asks of any image."""
        loss = torch.zeros((), device=self.inputs.device)
        if self.way.classes:
            scores = deciding(output)
            assert scores is not None
            assert self.targets is not None
            loss = loss + F.cross_entropy(scores.float(), self.targets)
        if self.way.statistics:
            loss = loss + self.recipe.statistics * distances.total
        return loss

    @torch.no_grad()
    def _stepped(self, drawing: Drawing, gradient: Tensor) -> Drawing:
        """Adam's step."""
        first, second = self.recipe.betas
        age = drawing.age + 1
        mean = drawing.mean.lerp(gradient, 1 - first)
        square = drawing.square.lerp(gradient.square(), 1 - second)
        rate = self.recipe.rate * UNIT * (1 + math.cos(math.pi * drawing.step / self.steps)) / 2
        change = (mean / (1 - first**age)) / ((square / (1 - second**age)).sqrt() + SMALL)
        pixels = self.inputs.valid(drawing.pixels.detach() - rate * change)
        return Drawing(pixels, mean, square, drawing.step + 1, drawing.seconds, age)


def noise(inputs: Inputs, n: int, seed: int) -> Tensor:
    """Normal around gray, clamped to valid pixels."""
    drawn = torch.randn(n, *inputs.shape, generator=seeded(seed, NOISE))
    return inputs.valid((0.5 + UNIT * drawn).to(inputs.device))


def clouds(inputs: Inputs, n: int, seed: int, octaves: int) -> Tensor:
    """Noise with blots of several sizes; of inputs that are no images the same as `noise`."""
    whole = inputs.shape[1:]
    if len(whole) != 2:
        return noise(inputs, n, seed)
    generator = seeded(seed, NOISE)
    parts = [
        _resized(
            torch.randn(n, inputs.shape[0], *smaller(whole, 0.5**i), generator=generator), torch.Size(whole)
        )
        for i in range(octaves)
        if i == 0 or min(whole) * 0.5**i >= FINEST
    ]
    drawn = torch.stack(parts).sum(0) / len(parts) ** 0.5
    return inputs.valid((0.5 + UNIT * drawn).to(inputs.device))


def moved(pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Shifted around the edges by up to a share of the side, and mirrored or not: an image means the same elsewhere."""
    if pixels.dim() != 4:
        return pixels
    for dim in (2, 3):
        most = round(share * pixels.shape[dim])
        by = int(torch.randint(-most, most + 1, (), generator=generator))
        pixels = pixels.roll(by, dim) if by else pixels
    return pixels.flip(3) if torch.rand((), generator=generator) < 0.5 else pixels


def roughness(pixels: Tensor) -> Tensor:
    """Mean absolute difference of neighboring pixels, in units; 0 for inputs that are no images."""
    if pixels.dim() != 4:
        return pixels.new_zeros(())
    return (pixels.diff(dim=2).abs().mean() + pixels.diff(dim=3).abs().mean()) / UNIT


def seeded(*numbers: int) -> torch.Generator:
    """A stream of random numbers of its own, the same on every device."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _resized(pixels: Tensor, sides: Sequence[int]) -> Tensor:
    """Smoothly smaller or larger."""
    if pixels.shape[2:] == sides:
        return pixels
    found: Tensor = F.interpolate(pixels, size=list(sides), mode="bilinear", antialias=True)
    return found
