"""The recipe's parts by themselves: how images move, through which noise they are seen, what early norms weigh."""

from __future__ import annotations

import pytest
import torch

import bnprobe
from bnprobe.experiments.synthesize.drawing import moved, roughness, seeded
from bnprobe.experiments.synthesize.inputs import Inputs, is_large
from bnprobe.experiments.synthesize.matching import Distances
from bnprobe.experiments.synthesize.recipe import UNIT, Recipe
from bnprobe.experiments.synthesize.stored import stored_statistics
from tests.experiments.synthesize.small import SHAPE, batch, trained


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


def test_noise_is_added_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if what is drawn is seen without noise, or with the same at every step."""
    seen: list[torch.Tensor] = []
    model = trained()
    model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    monkeypatch.setattr("bnprobe.experiments.synthesize.drawing.moved", lambda pixels, *_: 0 * pixels)
    bnprobe.synthesize(model, n=20, steps=2, shape=SHAPE, normalize=((0.0,), (1.0,)), controls=False)
    first, second = (x for x in seen if len(x) == 20 and float(x.mean()) < 0.1)
    for x in (first, second):
        assert float(x.std()) == pytest.approx(Recipe().noise * UNIT, rel=0.05)
        assert float(x.mean()) == pytest.approx(0, abs=0.005)
    assert abs(float((first * second).mean())) < 0.1 * float(first.var())


@pytest.mark.parametrize(("shape", "large"), [((3, 63, 200), False), ((3, 64, 64), True), ((5,), False)])
def test_which_images_are_large(shape: tuple[int, ...], large: bool) -> None:
    assert is_large(Inputs(shape, torch.tensor(0.0), torch.tensor(1.0), True, torch.float32)) is large


def test_large_images_are_seen_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if noise, which hides the shapes of large images from a judge, is added to them."""
    monkeypatch.setattr("bnprobe.experiments.synthesize.inputs.SMALL_SIDE", 4)
    monkeypatch.setattr("bnprobe.experiments.synthesize.drawing.moved", lambda pixels, *_: 0 * pixels)
    seen: list[torch.Tensor] = []
    model = trained()
    model.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    bnprobe.synthesize(model, n=20, steps=2, shape=SHAPE, normalize=((0.0,), (1.0,)), controls=False)
    assert sum(not x.any() for x in seen if len(x) == 20) == 2
