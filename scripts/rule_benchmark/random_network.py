"""Norms trained anew in each draw on images whose truth is known: their running statistics have the noise that is assumed.

Images are drawn from a population: one that is made up, and the inputs of the norms of a trained ResNet-20 on real
photographs, of which each draw takes others. Samples of these are alike in many ways that nobody made up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.models.image_folder import find_images
from scripts.cifar_resnet import resnet20

Array = NDArray[np.float64]

N_NORMS, N_CHANNELS, POSITIONS = 8, 10, 9
BATCH = 32
STEPS = 60


@dataclass(frozen=True)
class Population:
    """Images (n, C, P) of mean 0 and variance 1 in every channel; `widths` are the channels of each norm."""

    words: str
    widths: tuple[int, ...]
    images: Callable[[np.random.Generator, int], Array]

    def part(self, share: float, n_norms: int | None = None) -> NDArray[np.bool_]:
        """The first channels of each norm, such a share of them, in so many norms; of all, shape (C,)."""
        within = [np.arange(width) < share * width for width in self.widths]
        last = len(self.widths) if n_norms is None else n_norms
        return np.concatenate([part & (norm < last) for norm, part in enumerate(within)])


@dataclass(frozen=True)
class Setting:
    """What training and run have in common, and what not: `run` changes the images (n, C, P) of the run."""

    words: str
    n: int
    batch: int = BATCH
    given: int | None = None
    run: Callable[[Array], Array] = lambda images: images


def made_up(rng: np.random.Generator, n: int) -> Array:
    """Images of which two fifths of the variance lie between them, with unlike contrasts."""
    n_channels = N_NORMS * N_CHANNELS
    place = (rng.normal(size=(n, 1, 1)) + rng.normal(size=(n, n_channels, 1))) / np.sqrt(2)
    contrast = np.exp(0.5 * rng.normal(size=(n, 1, 1)) - 0.25)
    inside = contrast * rng.normal(size=(n, n_channels, POSITIONS))
    return np.asarray(np.sqrt(0.4) * place + np.sqrt(0.6) * inside)


MADE_UP = Population("", (N_CHANNELS,) * N_NORMS, made_up)


def real(data: Path) -> Population:
    """What reaches the norms of the ResNet-20 on 2,000 JPEG images.

    An image counts by its mean and its mean square in each channel, and nothing else of it reaches an error: so
    each is two values here, that have them.
    """
    model = resnet20()
    model.load_state_dict(models.load_checkpoint(data / "cifar_resnet20.th"), strict=False)
    norms = [module for module in model.eval().modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[list[Tensor]] = [[] for _ in norms]
    for norm, kept in zip(norms, seen, strict=True):
        norm.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(two_values(args[0])))
    preprocess = models.CropAndScale(size=32, resize=32)
    for part in ("train", "test"):
        for batch in find_images(data / "cifar10_jpeg" / part).batches(preprocess, 100):
            with torch.no_grad():
                model(torch.stack(batch.images))
    values = torch.cat([torch.cat(kept) for kept in seen], dim=1).double().numpy()
    values = (values - values.mean((0, 2), keepdims=True)) / values.std((0, 2), keepdims=True)
    widths = tuple(norm.num_features for norm in norms)
    return Population("ResNet-20: ", widths, lambda rng, n: values[rng.integers(len(values), size=n)])


def two_values(x: Tensor) -> Tensor:
    """Values (N, C, 2) with the mean and mean square that each image has in each channel."""
    mean, spread = x.mean((2, 3)), x.std((2, 3), correction=0)
    return torch.stack([mean - spread, mean + spread], dim=2)


class Norms(nn.Module):
    """Norms beside one another, each of its own channels."""

    def __init__(self, widths: tuple[int, ...], mean: Array, var: Array) -> None:
        super().__init__()
        self.widths = widths
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        for norm, means, variances in zip(
            self.norms, *(torch.from_numpy(v).split(widths) for v in (mean, var)), strict=True
        ):
            norm.running_mean.copy_(means)
            norm.running_var.copy_(variances)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [norm(part) for norm, part in zip(self.norms, x.split(self.widths, dim=1), strict=True)]


def draw(
    rng: np.random.Generator, setting: Setting, population: Population
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of layers and channels of one run of a network trained anew."""
    model = trained(rng, population, setting.batch)
    recording = record(model, setting.run(population.images(rng, setting.n)), setting.given)
    report = bnprobe.report(recording)
    return report.layers, report.channels


def trained(rng: np.random.Generator, population: Population, batch: int = BATCH) -> Norms:
    """A network whose running statistics are those of so many images per batch."""
    mean, var = np.zeros(sum(population.widths)), np.ones(sum(population.widths))
    for _ in range(STEPS):
        x = population.images(rng, batch)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2))
        var = 0.9 * var + 0.1 * x.var((0, 2), ddof=1)
    return Norms(population.widths, mean, var).eval()


def record(model: Norms, x: Array, training_batch: int | None = None) -> bnprobe.Recording:
    """Images (n, C, P) through the network, in twenty batches."""
    batches = batches_of(x, max(len(x) // 20, 1))
    return bnprobe.record(model, batches, histograms=False, training_batch=training_batch)


def batches_of(x: Array, size: int) -> list[Tensor]:
    """Images (n, C, P) as batches of images of one column."""
    return list(torch.from_numpy(x[..., None]).float().split(size))


def moved(part: NDArray[np.bool_], by: float) -> Callable[[Array], Array]:
    """The means of these channels moved, in standard deviations."""
    return lambda x: x + by * part[:, None]


def copied(times: int) -> Callable[[Array], Array]:
    """Of the first images only, so many copies each, side by side."""
    return lambda x: x[: len(x) // times].repeat(times, axis=0)
