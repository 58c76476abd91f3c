"""How often errors and tests are wrong: nominal rates against those found on data whose truth is known.

A draw is a network of eight batch norms, trained by an exponential average over batches of random images, and a run on
other images. Every image has a place and a contrast of its own, half of the place common to all channels, so that
neither pixels nor channels are independent. The simulation error is that of the mean over draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

import bnprobe

N_NORMS, N_CHANNELS, SIDE = 8, 10, 3
N_DRAWS = 24
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


@dataclass(frozen=True)
class Claim:
    """A rate that is claimed, with what it is of a draw's tables; `holds` is how it may differ from the nominal one."""

    words: str
    nominal: float
    holds: str
    found: Callable[[pd.DataFrame, pd.DataFrame], float]


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
    mean, var = np.zeros(N_NORMS * N_CHANNELS), np.ones(N_NORMS * N_CHANNELS)
    for _ in range(STEPS):
        x = images(rng, setting.batch)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2))
        var = 0.9 * var + 0.1 * x.var((0, 2), ddof=1)
    seen = setting.run(images(rng, setting.n)).reshape(setting.n, -1, SIDE, SIDE)
    batches = torch.from_numpy(seen).float().split(max(setting.n // 20, 1))
    recording = bnprobe.record(
        Norms(mean, var).eval(), list(batches), histograms=False, training_batch=setting.given
    )
    report = bnprobe.report(recording)
    return report.layers, report.channels


def mean_moved(by: float, part: float = 1.0) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The mean of this part of each norm's channels moved, in standard deviations."""
    moved = np.tile(np.arange(N_CHANNELS) < part * N_CHANNELS, N_NORMS)
    return lambda x: x + by * moved[:, None]


OF_MEANS = Claim("p < 0.01 for the mean", 0.01, "about", lambda _, c: (c["shift_p"] < 0.01).mean())
OF_SCALES = Claim("p < 0.01 for the scale", 0.01, "about", lambda _, c: (c["scale_p"] < 0.01).mean())
ANY = Claim(
    "a channel of any norm has q < 0.01",
    0.01,
    "about",
    lambda _, c: float(((c["shift_q"] < 0.01) | (c["scale_q"] < 0.01)).any()),
)
SHIFTED = Claim("verdict shifted", 0.0, "about", lambda t, _: t["verdict"].str.contains("shifted").mean())
SAME = Claim("verdict same", 0.05, "at most", lambda t, _: (t["verdict"] == "same").mean())
FOUND = Claim("q < 0.01 for the mean (power)", float("nan"), "", lambda _, c: (c["shift_q"] < 0.01).mean())
KNOWN = Claim("verdict same (power)", float("nan"), "", lambda t, _: (t["verdict"] == "same").mean())

NULL = (OF_MEANS, OF_SCALES, ANY, SHIFTED)
TRIALS = (
    *((Setting("nothing moved", n), (*NULL, KNOWN)) for n in (50, 200, 500)),
    (Setting("half the contrast, same mean", 500, run=lambda x: 0.5 * x), (OF_MEANS,)),
    (Setting("nothing moved, training batch 8, 32 assumed", 500, batch=8), NULL),
    (Setting("nothing moved, training batch 8, given", 500, batch=8, given=8), NULL),
    (Setting("nothing moved, training batch 128, 32 assumed", 500, batch=128), NULL),
    (Setting("nothing moved, training batch 128, given", 500, batch=128, given=128), NULL),
    *(
        (Setting(f"every mean moved by {by} σ", n, run=mean_moved(by)), (FOUND,))
        for by in (0.1, 0.3)
        for n in (50, 200, 500)
    ),
    *(
        (Setting("40% of the means moved by 0.25 σ", n, run=mean_moved(0.25, 0.4)), (SAME,))
        for n in (15, 30, 50, 100, 200)
    ),
)


def statistics(n_draws: int = N_DRAWS) -> pd.DataFrame:
    """A row per claim and setting: nominal rate, the one found, and its simulation error."""
    return pd.DataFrame(row for setting, claims in TRIALS for row in _rows(setting, claims, n_draws))


def _rows(setting: Setting, claims: tuple[Claim, ...], n_draws: int) -> Iterator[dict[str, object]]:
    rng = np.random.default_rng([setting.n, setting.batch, len(setting.words)])
    tables = [draw(rng, setting) for _ in range(n_draws)]
    for claim in claims:
        found = np.array([float(claim.found(*one)) for one in tables])
        yield {
            "setting": setting.words,
            "images": setting.n,
            "claim": claim.words,
            "holds": claim.holds,
            "nominal": claim.nominal,
            "found": round(float(found.mean()), 4),
            "error": round(float(found.std(ddof=1)) / np.sqrt(n_draws), 4),
        }
