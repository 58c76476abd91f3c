"""Images drawn at random as networks see them, what training on them leaves in running statistics, and fast records."""

from __future__ import annotations

import numpy as np

from bnprobe.recording import LayerRecord
from bnprobe.stats import N_FOLDS, Folds, ImageMoments, Moments
from measures.sites import site

PLACE = 0.4
"""Share of the variance of `images` that lies between images: their pixels are correlated by so much."""


def images(
    rng: np.random.Generator, n: int, n_channels: int = 24, n_positions: int = 16, common: float = 0.5
) -> np.ndarray:
    """Rows (n, C, P) of mean 0 and variance 1: every image has a place and a contrast of its own.

    Of the place `common` is shared by all channels of an image, and the contrast is: one bright image
    moves the whole layer.
    """
    place = np.sqrt(common) * rng.normal(size=(n, 1, 1))
    place = place + np.sqrt(1 - common) * rng.normal(size=(n, n_channels, 1))
    contrast = np.exp(0.5 * rng.normal(size=(n, 1, 1)) - 0.25)
    return np.sqrt(PLACE) * place + np.sqrt(1 - PLACE) * contrast * rng.normal(
        size=(n, n_channels, n_positions)
    )


def statistics(
    rng: np.random.Generator, n_steps: int = 60, batch: int = 32, momentum: float = 0.1, **kind: float
) -> dict[str, np.ndarray]:
    """Running statistics after training on such images: an exponential average, of unbiased variances."""
    mean, var = 0.0, 1.0
    for _ in range(n_steps):
        x = images(rng, batch, **kind)
        mean = (1 - momentum) * mean + momentum * x.mean((0, 2))
        var = (1 - momentum) * var + momentum * x.var((0, 2), ddof=1)
    return {"running_mean": mean, "running_var": var}


def record_of(
    rows: np.ndarray, running_mean: np.ndarray, running_var: np.ndarray, batch: int = 0
) -> LayerRecord:
    """Like `site`, fast: the statistics of many values by numpy, whose exactness other tests settle. With the folds of
    batches of this size, if one is given."""
    statistics = {"running_mean": running_mean, "running_var": running_var}
    small = site(rows[:2, :, :1] + 1e-9, histograms=False, **statistics)
    each = Moments.of(rows, axis=2)
    of_images = ImageMoments.of(each, np.broadcast_to(np.float64(running_mean), rows.shape[1]).copy())
    changes = {"pre": each.pool(), "pre_images": of_images, "n_images": len(rows), "momentum": 0.1}
    if batch:
        changes["pre_folds"] = folds_of(rows, batch, of_images.origin)
    return type(small)(**{**vars(small), **changes})


def folds_of(rows: np.ndarray, batch: int, origin: np.ndarray) -> Folds:
    """The folds of these rows in batches of one size, the last of the rest."""
    n_batches = -(-len(rows) // batch)
    number = np.arange(len(rows)) // batch
    d = rows - origin[:, None]
    a, b = d.mean(axis=2), (d * d).mean(axis=2)
    folds = [number % N_FOLDS == k for k in range(min(n_batches, N_FOLDS))]
    batches = [a[number == j] for j in range(n_batches)]
    return Folds(
        origin,
        np.array([np.full(rows.shape[1], float(fold.sum())) for fold in folds]),
        np.array([a[fold].sum(axis=0) for fold in folds]),
        np.array([b[fold].sum(axis=0) for fold in folds]),
        np.sum([((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in batches], axis=0),
        n_batches,
    )
