"""Images from statistics: what they match, that the model is as it was, budgets, seeds, and wrong uses in one line."""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.errors import BnprobeError
from tests.experiments.synthesize.small import NORMALIZE, SHAPE, Net, batch, trained
from tests.experiments.test_snapshot import state


def make(model: nn.Module, n: int = 12, steps: int = 4, **options: Any) -> bnprobe.Made:
    return bnprobe.synthesize(model, n=n, steps=steps, **{"shape": SHAPE, "normalize": NORMALIZE, **options})


def distance(model: Net, x: Tensor) -> float:
    """By numpy: root mean square over both norms, in running standard deviations."""
    inputs: list[np.ndarray[Any, Any]] = []
    hooks = [
        m.register_forward_pre_hook(lambda _, a: inputs.append(a[0].detach().double().numpy()))
        for m in (model.bn1, model.bn2)
    ]
    model(x)
    for hook in hooks:
        hook.remove()
    found = []
    for norm, seen in zip((model.bn1, model.bn2), inputs, strict=True):
        mean, var = norm.running_mean.double().numpy(), norm.running_var.double().numpy()
        sigma = np.sqrt(var + norm.eps)
        gap = (seen.mean((0, 2, 3)) - mean) / sigma
        found.append((gap**2 + (np.sqrt(seen.var((0, 2, 3)) + norm.eps) / sigma - 1) ** 2).mean())
    return float(np.sqrt(np.mean(found)))


def test_images_have_the_stored_statistics_and_their_classes() -> None:
    """Fails if a term of the loss is lost: each control lacks what it is a control for, and a second formula agrees."""
    model = trained()
    made = make(model, 24, 60, judge=trained(5, seed=2))
    table = made.table.set_index("images")
    assert table.loc["statistics and classes", "distance"] == pytest.approx(
        distance(model, made.images), rel=1e-4
    )
    assert table.loc["statistics and classes", "distance"] < 0.5 * table.loc["classes only", "distance"]
    assert table.loc["statistics only", "distance"] < 0.5 * table.loc["noise", "distance"]
    assert table.loc["permuted statistics", "distance"] > 2 * table.loc["statistics and classes", "distance"]
    assert table.loc["statistics and classes", "own"] == 1
    assert table.loc["classes only", "own"] == 1
    assert table.loc["statistics only", "own"] < 0.8
    assert table.loc["statistics and classes", "judge"] >= 0.9
    assert made.targets is not None
    assert made.targets.tolist() == [0, 1, 2] * 8


def test_pixels_stay_within_their_range() -> None:
    """Fails if pixels are not clamped: inputs of -.5 to .5 are asked for statistics of a wider range."""
    made = make(trained(), steps=40, normalize=((0.5,), (1.0,)), controls=False)
    assert float(made.images.min()) == -0.5
    assert float(made.images.max()) == 0.5


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails_in", [-1, 9, 10])
def test_the_model_is_as_it_was(training: bool, fails_in: int) -> None:
    """Fails if a mode, a gradient, a requires_grad, a hook, a buffer or a random state is left as it was needed."""
    model = trained().train(training)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    model.head.bias.requires_grad_(False)
    model.fails_in[:] = [fails_in, 1] if fails_in == 10 else [fails_in]
    before = state(model)
    keys = before.pop("values ")
    with suppress(ZeroDivisionError, KeyboardInterrupt):
        make(model, data=[batch(6, 1), batch(6, 2)])
    after = state(model)
    assert after.pop("values ").keys() == keys.keys()
    assert after == before


def test_the_seed_decides() -> None:
    """Fails if a number is drawn from elsewhere, or the seed is not used."""
    torch.manual_seed(7)
    first = make(trained(), seed=3).images
    torch.manual_seed(8)
    assert torch.equal(make(trained(), seed=3).images, first)
    assert not torch.equal(make(trained(), seed=4, controls=False).images, first)


def test_the_moves_depend_on_seed_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if images are shifted alike at every step, or for every seed."""
    drawn: list[int] = []

    def look(pixels: Tensor, share: float, chance: torch.Generator) -> Tensor:
        drawn.append(chance.initial_seed())
        return pixels

    monkeypatch.setattr("bnprobe.experiments.synthesize.drawing.moved", look)
    make(trained(), seed=0, controls=False)
    make(trained(), seed=1, controls=False)
    assert len(drawn) == len(set(drawn)) == 8


def test_the_controls_do_not_change_the_images() -> None:
    assert torch.equal(make(trained(), controls=False).images, make(trained()).images)


def test_it_works_where_gradients_are_off() -> None:
    with torch.no_grad():
        assert make(trained(), controls=False).table["steps"].iloc[0] == 4


@pytest.mark.parametrize("shape", [(1, 6, 5), (5, 7, 9), (4,)])
def test_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    """Fails for gray images, for five channels, and for rows of numbers."""
    torch.manual_seed(0)
    kind, norm = (nn.Conv2d, nn.BatchNorm2d) if len(shape) == 3 else (nn.Linear, nn.BatchNorm1d)
    first = kind(shape[0], 4, 3) if kind is nn.Conv2d else kind(shape[0], 4)
    model = nn.Sequential(first, norm(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    model(torch.randn(20, *shape))
    made = make(model.eval(), shape=shape, normalize=None)
    assert made.images.shape == (12, *shape)
    assert len(made.sheets) == (5 if len(shape) == 3 else 0)
    assert any("range of valid pixels is not known" in note for note in made.notes)


def test_a_network_without_classes_has_statistics_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    model(batch(20, 0)[0])
    made = make(model)
    assert made.table["images"].tolist() == ["statistics only", "permuted statistics", "noise"]
    assert made.targets is None
    assert np.isnan(made.table["own"]).all()
    with pytest.raises(BnprobeError, match="scores no classes"):
        make(model, targets=[0])


def test_a_norm_that_is_called_twice_and_one_that_is_not_called() -> None:
    class Twice(Net):
        def __init__(self) -> None:
            super().__init__(8)
            self.spare = deepcopy(trained().bn1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.head(self.bn2(self.conv1(x)).mean((2, 3)))

    model = Twice()
    model(batch(20, 0)[0])
    made = make(model, controls=False)
    assert made.table["steps"].iloc[0] == 4
    assert made.notes == ("Left out: 1 batch norm that a pass does not call.",)


def test_norms_without_statistics_of_data_are_named() -> None:
    """Fails if a reader is not shown that some norms took no part."""
    model = trained()
    model.bn2.reset_running_stats()
    found = make(model, controls=False).notes
    assert found == ("Left out: 1 batch norm with the running statistics of initialization.",)


def test_a_budget_stops_it_and_says_so() -> None:
    made = make(trained(), steps=100_000, budget_s=0.5)
    assert made.table["images"].iloc[0] == "statistics and classes"
    assert 0 < made.table["steps"].iloc[0] < 100_000
    assert made.notes[0].startswith("Time ran out after ")
    assert made.images.shape == (12, *SHAPE)
    assert not made.interrupted


def test_ctrl_c_keeps_what_was_made() -> None:
    model = trained()
    model.fails_in[:] = [20, 1]
    made = make(model, steps=100)
    assert made.interrupted
    assert made.notes[0].startswith("Interrupted after ")


def test_images_of_fewer_pixels_come_first_where_the_model_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fails if a network with a weight for every pixel is given smaller images, or one without is not."""
    monkeypatch.setattr("bnprobe.experiments.synthesize.inputs.SMALL_SIDE", 4)
    sizes: set[torch.Size] = set()
    pooled = trained()
    flat = nn.Sequential(pooled.conv1, pooled.bn1, nn.Flatten(), nn.Linear(6 * 64, 3))
    for model, expected in ((pooled, {4, 8}), (flat, {8})):
        sizes.clear()
        hook = pooled.bn1.register_forward_pre_hook(lambda _, args: sizes.add(args[0].shape))
        make(model, steps=10, controls=False)
        hook.remove()
        assert {size[-1] for size in sizes if size[0] > 2} == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"targets": [0, 3]}, "target 3 is no class of the model, which has 3. Pass numbers of 0 to 2"),
        ({"targets": -1}, "target -1 is no class"),
        ({"targets": [0.5]}, "whole numbers of classes"),
        ({"targets": list(range(13))}, "targets must be 1 to 12 whole numbers"),
        ({"targets": "cat"}, "targets must be"),
        ({"targets": torch.eye(3).long()}, "targets must be 1 to 12 whole numbers of classes, one per image"),
        ({"class_names": ("cat", "dog")}, "class_names has 2 names and the network 3 classes"),
        ({"class_names": "cat"}, "class_names must be a list of texts, one per class"),
        ({"class_names": [1, 2, 3]}, "class_names must be a list of texts"),
        ({"class_names": 3}, "class_names must be a list of texts"),
        ({"state": 5}, "state=5 is no path"),
        ({"steps": 0}, "steps=0 is no whole number"),
        ({"n": 1}, "n=1 is no whole number of 2 to"),
        ({"seed": -1}, "seed=-1 is no whole number"),
        ({"budget_s": 0}, "budget_s=0 is not a number of seconds"),
        ({"budget_s": 1e-9}, "too short for one step.*Give more time"),
        ({"shape": (4, 8, 8), "normalize": None}, r"Net refuses inputs of shape \(4, 8, 8\)"),
        ({"shape": 0}, "is no shape of an input"),
        ({"shape": 10**6}, "is no shape of an input"),
        (
            {"normalize": ((0, 0), (1, 1))},
            "no mean and std of 3 channels.*--mean and --std: one number per channel, or one for all",
        ),
        ({"normalize": ((0,), (0,))}, "every std above 0"),
        ({"normalize": ((0,), (float("inf"),))}, "every std above 0"),
        ({"normalize": 3}, "no mean and std"),
        ({"data": (x for x in [])}, "runs out after one use"),
        ({"data": []}, "data held no samples"),
        ({"data": [torch.zeros(5, 3, 9, 9)]}, r"data hold inputs of shape \(3, 9, 9\)"),
    ],
)
def test_wrong_uses_are_refused_in_a_line(options: dict[str, Any], says: str) -> None:
    model = trained()
    before = state(model)
    with pytest.raises(BnprobeError, match=says):
        make(model, **options)
    assert state(model) == before


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(BnprobeError, match=r"needs a torch.nn.Module, got dict"):
        bnprobe.synthesize({})  # type: ignore[arg-type]


def test_a_model_that_gives_no_gradient_is_refused() -> None:
    class Frozen(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().forward(x)

    model = Frozen()
    model(batch(20, 0)[0])
    with pytest.raises(BnprobeError, match="has no gradient with respect to its input"):
        make(model)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = trained()
    model.head.bias.data[0] = torch.nan
    with pytest.raises(BnprobeError, match="step 1 gives a loss that is not finite"):
        make(model)


def test_norms_that_a_pass_does_not_call_cannot_be_matched() -> None:
    class Without(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv2(self.conv1(x)).mean((2, 3)))

    model = Without()
    model.load_state_dict(trained().state_dict())
    with pytest.raises(BnprobeError, match="calls none of its 2 batch norms"):
        make(model)
