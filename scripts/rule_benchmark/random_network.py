"""A network of eight batch norms on random images, trained by an exponential average, and a run of it on others.

Every image has a place and a contrast of its own, half of the place common to all channels, so that neither pixels nor
channels are independent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

import bnprobe

N_NORMS, N_CHANNELS, SIDE = 8, 10, 3
BATCH = 32
STEPS = 60


@dataclass(frozen=True)
class Setting:
    """What training and run have in common, and what not: `run` changes the images (n, C, P) of the run."""

    words: str
    n: int
    batch: int = BATCH
    given: int | None = None
    run: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda images: images


def images(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Images (n, C, P) of mean 0 and variance 1; two fifths of it lie between images."""
    n_channels = N_NORMS * N_CHANNELS
    place = (rng.normal(size=(n, 1, 1)) + rng.normal(size=(n, n_channels, 1))) / np.sqrt(2)
    contrast = np.exp(0.5 * rng.normal(size=(n, 1, 1)) - 0.25)
    inside = contrast * rng.normal(size=(n, n_channels, SIDE**2))
    return np.asarray(np.sqrt(0.4) * place + np.sqrt(0.6) * inside)


class Norms(nn.Module):
    """Norms beside one another, each of its own channels."""

    def __init__(self, mean: NDArray[np.float64], var: NDArray[np.float64]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(N_CHANNELS) for _ in range(N_NORMS))
        for norm, means, variances in zip(
            self.norms, np.split(mean, N_NORMS), np.split(var, N_NORMS), strict=True
        ):
            norm.running_mean.copy_(torch.from_numpy(means))
            norm.running_var.copy_(torch.from_numpy(variances))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [norm(part) for norm, part in zip(self.norms, x.split(N_CHANNELS, dim=1), strict=True)]


def draw(rng: np.random.Generator, setting: Setting) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of layers and channels of one run of a network trained anew."""
    recording = record(trained(rng, setting.batch), setting.run(images(rng, setting.n)), setting.given)
    report = bnprobe.report(recording)
    return report.layers, report.channels


def trained(rng: np.random.Generator, batch: int = BATCH) -> Norms:
    """A network whose running statistics are those of so many images per batch."""
    mean, var = np.zeros(N_NORMS * N_CHANNELS), np.ones(N_NORMS * N_CHANNELS)
    for _ in range(STEPS):
        x = images(rng, batch)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2))
        var = 0.9 * var + 0.1 * x.var((0, 2), ddof=1)
    return Norms(mean, var).eval()


def record(model: Norms, x: NDArray[np.float64], training_batch: int | None = None) -> bnprobe.Recording:
    """Images (n, C, P) through the network, in twenty batches."""
    batches = batches_of(x, max(len(x) // 20, 1))
    return bnprobe.record(model, batches, histograms=False, training_batch=training_batch)


def batches_of(x: NDArray[np.float64], size: int) -> list[torch.Tensor]:
    """Images (n, C, P) as batches of squares."""
    return list(torch.from_numpy(x.reshape(len(x), -1, SIDE, SIDE)).float().split(size))


def mean_moved(by: float, part: float = 1.0) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The mean of this part of each norm's channels moved, in standard deviations."""
    moved = np.tile(np.arange(N_CHANNELS) < part * N_CHANNELS, N_NORMS)
    return lambda x: x + by * moved[:, None]
