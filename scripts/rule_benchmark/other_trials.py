"""Trials of everything that is no comparison with running statistics: two sides, drift, padding and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.measures import StemReading
from scripts.rule_benchmark.claims import AT_LEAST, AT_MOST, NO_CLAIM, Claim, Trial
from scripts.rule_benchmark.random_network import Population, batches_of, record, trained


def halves(rng: np.random.Generator, population: Population, n: int, n_b: int) -> tuple[bnprobe.Comparison]:
    """Two sides of images that were drawn alike."""
    model = trained(rng, population)
    return (bnprobe.compare(*(record(model, population.images(rng, size)) for size in (n, n_b))),)


def any_changed(comparison: bnprobe.Comparison) -> float:
    return float(comparison.channels["pre_changed"].any())


ANY_CHANGED = Claim("a channel of any norm is called changed", 0.01, AT_MOST, any_changed)


def stream(rng: np.random.Generator, population: Population, n: int, by: float) -> tuple[list[bool]]:
    """Looks after every 50 images, at a stream whose means are `by` σ off those of 500 images."""
    model = trained(rng, population)
    reference, looks = record(model, population.images(rng, 500)), []
    with bnprobe.attach(model, histograms=False) as probe, torch.no_grad():
        for batch in batches_of(population.images(rng, n) + by, 50):
            model(batch)
            looks.append(bnprobe.report(probe).drift(reference).drifted)
    return (looks,)


def ever(looks: list[bool]) -> float:
    return float(any(looks))


BLACK, COLOR, MEAN, STD = 0.0, (0.6, 0.45, 0.3), (0.48, 0.45, 0.4), (0.25, 0.25, 0.25)
SIZE, MARGIN = 16, 2


def photos(rng: np.random.Generator, n: int) -> Tensor:
    """Pixels (n, 3, SIZE, SIZE): a color and a brightness for each, and noise."""
    light = 0.12 * rng.normal(size=(n, 1, 1, 1)) + 0.05 * rng.normal(size=(n, 3, 1, 1))
    pixels = np.array(COLOR)[:, None, None] + light + 0.1 * rng.normal(size=(n, 3, SIZE, SIZE))
    return torch.from_numpy(pixels).float()


def normalized(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def cropped(rng: np.random.Generator, pixels: Tensor, margin: int) -> Tensor:
    """Each image padded with black and cropped at random."""
    padded = F.pad(pixels, [margin] * 4, value=BLACK)
    corners = rng.integers(0, 2 * margin + 1, (len(pixels), 2))
    crops = [image[:, y : y + SIZE, x : x + SIZE] for image, (y, x) in zip(padded, corners, strict=True)]
    return torch.stack(crops)


def black_share(margin: int) -> float:
    """Of the pixels of such crops, on average."""
    seen = np.mean([SIZE - abs(offset - margin) for offset in range(2 * margin + 1)]) / SIZE
    return float(1 - seen**2)


def first_norm(rng: np.random.Generator, n: int, margin: int) -> tuple[StemReading]:
    """What the first norm says of training images with such a margin, by n others without."""
    weights = torch.from_numpy(rng.normal(size=(16, 3, 3, 3)) / 5).float()
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    model[0].weight.data.copy_(weights)
    with torch.no_grad():
        for _ in range(60):
            model(normalized(cropped(rng, photos(rng, 32), margin)))
    batches = list(normalized(photos(rng, n)).split(max(n // 20, 1)))
    recording = bnprobe.record(model.eval(), batches, normalize=(MEAN, STD), histograms=False)
    return (bnprobe.report(recording).stem,)


def within_two_errors(stem: StemReading) -> float:
    """Whether the share that was found is; NaN where none was."""
    found = stem.padding
    return (
        float("nan") if found is None else float(abs(found.share - black_share(MARGIN)) <= 2 * found.share_se)
    )


def black_seen(stem: StemReading) -> float:
    return float(stem.padding is not None and stem.padding.is_seen)


NO_BLACK = Claim("black is said to have been added", 0.025, AT_MOST, black_seen)
SHARE = Claim("share of black within two errors", 0.95, AT_LEAST, within_two_errors)
SEEN = Claim("black is said to have been added (power)", NO_CLAIM, "", black_seen)


def gradients(rng: np.random.Generator, passes: int, signal: float) -> tuple[float, float]:
    """Ratio and its upper bound for β of ten channels, whose gradients have this signal in noise of 1."""
    model = nn.BatchNorm1d(10)
    with bnprobe.attach(model, histograms=False) as probe:
        for _ in range(passes):
            weights = torch.from_numpy(rng.normal(size=10) + signal).float()
            (model(torch.from_numpy(rng.normal(size=(8, 10))).float()).mean(0) * weights).sum().backward()
    row = bnprobe.report(probe).layers.iloc[0]
    return float(row["beta_snr_pooled"]), float(row["beta_snr_upper"])


NOISE = Claim("noise alone is given a ratio of 0", 0.5, AT_LEAST, lambda ratio, upper: float(ratio == 0))
UPPER = Claim("ratio of 0.3 below its upper bound", 0.95, AT_LEAST, lambda ratio, upper: float(upper >= 0.3))
SILENT = Claim("ratio of 0.3 called no signal", 0.025, AT_MOST, lambda ratio, upper: float(upper < 0.1))


def of_sides(population: Population) -> Iterator[Trial]:
    """Two sides of one population."""
    for n, n_b in ((30, 30), (50, 50), (200, 200), (50, 500)):
        run = partial(halves, population=population, n=n, n_b=n_b)
        yield Trial(f"{population.words}two sides, nothing moved, {n} and {n_b}", n, (ANY_CHANGED,), run)


def of_streams(population: Population) -> Iterator[Trial]:
    """A stream against a reference of the same population, and one that moved."""
    words = f"{population.words}a stream looked at after every 50 images"
    alarm = Claim("drifted at any look", 0.01, AT_MOST, ever)
    found = Claim("drifted at any look (power)", NO_CLAIM, "", ever)
    yield Trial(
        f"{words}, nothing moved", 2000, (alarm,), partial(stream, population=population, n=2000, by=0.0)
    )
    yield Trial(
        f"{words}, means moved by 0.3 σ",
        500,
        (found,),
        partial(stream, population=population, n=500, by=0.3),
    )


OTHERS = (
    *(
        Trial("trained without padding", n, (NO_BLACK,), partial(first_norm, n=n, margin=0))
        for n in (100, 1000)
    ),
    *(
        Trial(
            f"trained with {MARGIN} pixels of black",
            n,
            (SHARE, SEEN),
            partial(first_norm, n=n, margin=MARGIN),
        )
        for n in (100, 1000)
    ),
    *(
        Trial(
            f"gradients of noise, {passes} passes",
            passes,
            (NOISE,),
            partial(gradients, passes=passes, signal=0.0),
        )
        for passes in (8, 20, 46)
    ),
    *(
        Trial(
            f"gradients with a signal of 0.3, {passes} passes",
            passes,
            (UPPER, SILENT),
            partial(gradients, passes=passes, signal=0.3),
        )
        for passes in (8, 46)
    ),
)
