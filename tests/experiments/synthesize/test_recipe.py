"""The recipe's parts by themselves: where images start, how they move, what early norms weigh."""

from __future__ import annotations

import pytest
import torch

from bnprobe.experiments.synthesize.drawing import clouds, moved, noise, roughness, seeded
from bnprobe.experiments.synthesize.inputs import Inputs
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.recipe import UNIT
from bnprobe.experiments.synthesize.stored import stored_statistics
from tests.experiments.synthesize.small import batch, trained


def inputs(*shape: int, bounded: bool = False) -> Inputs:
    return Inputs(shape, torch.tensor(0.0), torch.tensor(1.0), bounded, torch.float32)


def test_images_start_as_blots_of_every_size() -> None:
    """Fails if the start is white noise, whose mean over a block of 8 x 8 pixels has an eighth of its spread."""
    white, start = noise(inputs(3, 128, 128), 9, 0), clouds(inputs(3, 128, 128), 9, 0, 4)
    for drawn, low, high in ((white, 0.11, 0.14), (start, 0.5, 0.8)):
        blocks = drawn.unflatten(2, (16, 8)).unflatten(4, (16, 8)).mean((3, 5))
        assert low < float(blocks.std() / drawn.std()) < high
    assert float(start.mean()) == pytest.approx(0.5, abs=0.02)
    assert 0.6 * UNIT < float(start.std()) < 1.1 * UNIT


def test_small_images_have_small_blots_only() -> None:
    """Fails if blots of a third of an image are drawn, which would be shapes: 16 along a side is the least."""
    assert torch.equal(clouds(inputs(3, 32, 32), 4, 0, 9), clouds(inputs(3, 32, 32), 4, 0, 2))
    assert torch.equal(clouds(inputs(3, 9, 9), 4, 0, 9), noise(inputs(3, 9, 9), 4, 0))


def test_what_is_no_image_starts_as_noise() -> None:
    assert torch.equal(clouds(inputs(7), 5, 0, 4), noise(inputs(7), 5, 0))


def test_a_move_keeps_every_pixel() -> None:
    """Fails if images are cut, or all are moved alike whatever the stream."""
    x = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    found = [moved(x, 0.25, seeded(0, i)) for i in range(20)]
    assert all(torch.equal(one.flatten().sort().values, x.flatten()) for one in found)
    assert len({tuple(one.flatten().tolist()) for one in found}) > 8
    rows = torch.arange(8.0).expand(1, 1, 8, 8)
    begins = {int(moved(rows, 0.25, seeded(1, i))[0, 0, 0, 0]) for i in range(40)}
    assert begins == {6, 7, 0, 1, 2} | {5}  # by up to a quarter of the side, and mirrored


def test_roughness_is_the_mean_difference_of_neighbors() -> None:
    x = torch.zeros(1, 1, 2, 3)
    x[0, 0, 0, 1] = UNIT
    assert float(roughness(x)) == pytest.approx(1 / 3 + 2 / 4)
    assert float(roughness(torch.ones(2, 5))) == 0


def test_early_norms_weigh_more() -> None:
    """Fails if the weights do not fall from the first to 1, or do not enter the sum."""
    model = trained()
    found = {}
    for first in (1.0, 10.0):
        distances = Distances(stored_statistics(model), first)
        with distances.watching(), torch.no_grad():
            model(batch(6, 1)[0] * 2)
            parts, found[first] = [float(one) for one in distances.by_norm.values()], float(distances.total)
    assert found[1.0] == pytest.approx(parts[0] + parts[1], rel=1e-5)
    assert found[10.0] == pytest.approx(10 * parts[0] + parts[1], rel=1e-5)
