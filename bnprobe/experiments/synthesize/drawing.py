"""Images on their way from noise: one step of Adam after another, for one way to make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.outputs import deciding
from bnprobe.experiments.synthesize.inputs import Inputs, smaller
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.pyramid import Pyramid
from bnprobe.experiments.synthesize.recipe import UNIT, Recipe, Way
from bnprobe.experiments.synthesize.stored import Stored

SMALL = 1e-8
PERMUTATION, NOISE, MOVES, START = range(4)
"""Streams of random numbers."""


@dataclass
class Drawing:
    """Values of a pyramid (n, all), both averages of Adam, and what was done so far."""

    values: Tensor
    mean: Tensor
    square: Tensor
    step: int = 0
    seconds: float = 0.0
    age: int = 0
    """Steps since the averages were empty."""

    @classmethod
    def of(cls, values: Tensor, step: int = 0, seconds: float = 0.0) -> Drawing:
        """With averages that are still empty."""
        return cls(values, torch.zeros_like(values), torch.zeros_like(values), step, seconds)


@dataclass(frozen=True)
class Drawer:
    """Everything that a step needs."""

    model: nn.Module
    pyramid: Pyramid
    targets: Tensor | None
    way: Way
    norms: Sequence[Stored]
    steps: int
    seed: int
    recipe: Recipe

    @property
    def inputs(self) -> Inputs:
        """What the model takes."""
        return self.pyramid.inputs

    def start(self, n: int) -> Drawing:
        """Noise, the same for all ways."""
        return Drawing.of(self.pyramid.noise(n, seeded(self.seed, START), self._sides(0)))

    def distances(self) -> Distances:
        """From the statistics of this way."""
        if not self.way.permuted:
            return Distances(self.norms, self.recipe.first)
        generator = seeded(self.seed, PERMUTATION)
        return Distances([norm.permuted(generator) for norm in self.norms], self.recipe.first)

    def advance(self, drawing: Drawing, distances: Distances) -> Drawing:
        """One step further. Raises BnprobeError where the model gives no gradient."""
        sides = self._sides(drawing.step)
        if drawing.step and sides != self._sides(drawing.step - 1):  # a finer picture comes in
            drawing = Drawing.of(drawing.values, drawing.step, drawing.seconds)
        values = drawing.values.requires_grad_()
        pixels = self.pyramid.pixels(values, sides)
        distances.begin()
        chance = seeded(self.seed, MOVES, drawing.step)
        seen = moved(pixels, self.recipe.shift, chance)
        given = self.inputs.of(seen + self._noise(seen.shape, chance))
        loss = self._loss(self.model(given), distances)
        if not loss.requires_grad:
            raise BnprobeError(
                f"the output of {class_name(self.model)} has no gradient with respect to its input, so no image can be "
                "made. Take torch.no_grad and detach() out of its forward."
            )
        if not loss.isfinite():
            raise BnprobeError(
                f"step {drawing.step + 1:,} gives a loss that is not finite, so no image can be made. Pass normalize=, the "
                "mean and std of the model's inputs, and check its weights with bnprobe.check."
            )
        (gradient,) = torch.autograd.grad(loss + self.recipe.roughness * roughness(pixels), values)
        return self._stepped(drawing, gradient)

    def _sides(self, step: int) -> Sequence[int]:
        """Of images at a step: fewer pixels at the start, where they get their large shapes."""
        whole = self.inputs.shape[1:]
        for until, part in self.recipe.stages:
            if len(whole) == 2 and step < until * self.steps:
                return smaller(whole, part)
        return torch.Size(whole)

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return self.recipe.noise * UNIT * torch.randn(shape, generator=generator).to(self.inputs.device)

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
        rate = self.recipe.rate / len(self.pyramid.sides) ** 0.5
        rate *= (1 + math.cos(math.pi * drawing.step / self.steps)) / 2
        change = (mean / (1 - first**age)) / ((square / (1 - second**age)).sqrt() + SMALL)
        values = drawing.values.detach() - rate * change
        return Drawing(values, mean, square, drawing.step + 1, drawing.seconds, age)


def noise(inputs: Inputs, n: int, seed: int) -> Tensor:
    """Normal around gray, clamped to valid pixels."""
    drawn = torch.randn(n, *inputs.shape, generator=seeded(seed, NOISE))
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
