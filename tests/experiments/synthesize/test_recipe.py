"""The recipe's parts by themselves: how images move, how smooth they are, what early norms weigh."""

from __future__ import annotations

import pytest
import torch

from bnprobe.experiments.synthesize.drawing import moved, roughness, seeded
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.recipe import UNIT
from bnprobe.experiments.synthesize.stored import stored_statistics
from tests.experiments.synthesize.small import batch, trained


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
