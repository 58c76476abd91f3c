"""Real images beside made ones: the floor, and the nearest of all by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import bnprobe
from tests.experiments.synthesize.small import NORMALIZE, SHAPE, batch, trained
from tests.experiments.synthesize.test_synthesize import distance


def pixels(x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZE)
    return (x * std + mean).double().flatten(1).numpy()


def test_the_nearest_of_all_real_images_by_brute_force() -> None:
    """Fails if a batch is left out, a real image counts as its own neighbor, or distances are not per pixel."""
    model, data = trained(), [batch(5, 1), batch(4, 2), batch(7, 3)]
    made = bnprobe.synthesize(
        model, n=6, steps=3, shape=SHAPE, normalize=NORMALIZE, data=data, controls=False
    )
    real = np.concatenate([pixels(x) for x, _ in data])
    far = np.sqrt(((pixels(made.images)[:, None] - real) ** 2).mean(2))
    own = np.sqrt(((real[:6, None] - real) ** 2).mean(2))
    own[np.arange(6), np.arange(6)] = np.inf
    assert made.nearest is not None
    assert made.nearest["distance"].to_numpy() == pytest.approx(far.min(1), rel=1e-3)
    assert made.nearest["real_distance"].to_numpy() == pytest.approx(own.min(1), rel=1e-3)
    assert made.n_real == 16
    shown = next(sheet for sheet in made.sheets if sheet.name == "nearest").pixels
    expected = (real[far.argmin(1)].reshape(6, *SHAPE).clip(0, 1) * 255).round().transpose(0, 2, 3, 1)
    assert np.abs(shown.astype(float) - expected).max() <= 1


def test_a_real_batch_is_the_floor() -> None:
    """Fails if its labels are not those of the data, or its distance not that of the first images."""
    model, (x, y) = trained(), batch(8, 1)
    y = y.roll(1)
    made = bnprobe.synthesize(
        model,
        n=6,
        steps=2,
        judge=trained(4, 2),
        shape=SHAPE,
        normalize=NORMALIZE,
        data=[(x, y)],
        controls=False,
    )
    row = made.table.set_index("images").loc["real"]
    assert row["n"] == 6
    assert row["distance"] == pytest.approx(distance(model, x[:6]), rel=1e-4)
    assert row["own"] == pytest.approx(float((model(x[:6]).argmax(1) == y[:6]).float().mean()))
    assert np.isnan(row["judge_worse"])  # of other classes, image by image


def test_data_without_labels_are_not_judged() -> None:
    made = bnprobe.synthesize(trained(), n=6, steps=2, shape=SHAPE, data=[batch(8, 1)[0]], controls=False)
    row = made.table.set_index("images").loc["real"]
    assert np.isnan(row["own"])
    assert row["distance"] > 0
