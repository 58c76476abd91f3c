"""Advice that is code, run on real norms: those that torch's update_bn passes over."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.rules.edits import (
    Freeze,
    InFloat32,
    Recalibrate,
    RecalibrateOne,
    Reinitialize,
    Rescale,
    SetGamma,
    UndoMap,
    all_of,
    remedy,
    undoing,
)
from bnprobe.rules.remedies import (
    for_all,
    in_words,
    is_function,
    made_new,
    made_new_edit,
    module,
    recalibrate,
    recalibration,
    reinitialized,
    rescaled,
    unit_scale,
)

NEVER = "statistics-never-updated"


def trained(norm: nn.Module) -> nn.Module:
    """A norm in a network whose gamma was trained, and whose running statistics are the initial ones."""
    torch.manual_seed(0)
    norm.weight.data.fill_(1.5)  # type: ignore[union-attr, operator]
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()).eval()


def found(model: nn.Module, x: Tensor, rule: str) -> pd.DataFrame:
    with bnprobe.attach(model) as probe:
        model(x)
    findings = bnprobe.report(probe).findings
    return findings[findings["rule"] == rule]


@pytest.mark.parametrize("loaded", ["images", "pairs"])
@pytest.mark.parametrize(
    "norm", [FrozenBatchNorm2d(4), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)]
)
def test_statistics_of_norms_that_update_bn_ignores(norm: nn.Module, loaded: str):
    """Fails if the advice leaves the running statistics as they are, or sets them to something other than an average."""
    norm.running_mean.zero_(), norm.running_var.fill_(1)  # type: ignore[operator, union-attr]
    model, batches = trained(norm), [3 + 2 * torch.randn(8, 3, 9, 9) for _ in range(3)]
    (advice,) = found(model, batches[0], NEVER)["do"]
    loader = batches if loaded == "images" else [(x, 0) for x in batches]
    names = {"torch": torch, "model": model, "loader": loader}
    for code in re.findall(r"`([^`]+)`", advice):
        exec(code, names)
    assert found(model, batches[0], NEVER).empty
    seen = [model[0](x).detach() for x in batches]  # type: ignore[operator, index]
    dims = (2, 3) if isinstance(norm, nn.InstanceNorm2d) else (0, 2, 3)
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    var = torch.stack([x.var(dims).reshape(-1, 4).mean(0) for x in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def test_data_that_shifted_under_a_frozen_norm():
    """Fails if update_bn is advised where it does nothing."""
    norm = FrozenBatchNorm2d(4)
    norm.running_mean.fill_(50)
    (advice,) = found(trained(norm), torch.randn(40, 3, 9, 9), "data-shifted")["do"]
    assert "swa_utils" not in advice
    assert "for b in batches" in advice


def test_producers_found_by_name_are_modules_of_the_model():
    """Fails if advice on a file of weights asks for a module called "0 (by name)"."""
    assert module("layer1.0.conv1 (by name)") == 'model.get_submodule("layer1.0.conv1")'


def test_a_file_does_not_tell_that_a_bias_is_redundant():
    """Fails if a bias is to be taken out although names alone do not show what else it reaches."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model(torch.randn(8, 3, 9, 9))
    report = bnprobe.check(model.state_dict())
    assert report.layers["feeder"].tolist() == ["0 (by name)"]
    assert "bias-redundant" not in set(report.findings["rule"])


def decayed_and_dead() -> nn.Sequential:
    """Filters 0 and 2 of the first, and 1 of the second convolution have decayed with their γ; β is far below 0."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.ReLU(), nn.Conv2d(9, 9, 3), nn.BatchNorm2d(9), nn.ReLU()
    )
    for conv, norm, at in ((model[0], model[1], [0, 2]), (model[3], model[4], [1])):
        conv.weight.data[at] *= 1e-4  # type: ignore[operator, union-attr]
        norm.weight.data[at] = 1e-5  # type: ignore[operator, union-attr]
        norm.bias.data[at] = -1.0  # type: ignore[operator, union-attr]
    return model.eval()


@pytest.mark.parametrize("rule", ["filters-decayed", "channels-dead", "channels-constant"])
def test_advice_for_two_places_repairs_both(rule: str):
    """Fails if the code on the page repairs only the first of the places that stand above it."""
    model = decayed_and_dead()
    findings = found(model, torch.randn(40, 3, 9, 9), rule)
    assert findings["layer"].tolist() == ["1", "4"]
    ((places, advice),) = for_all(findings["do"].tolist())
    assert places == (0, 1)
    for code in re.findall(r"`([^`]+)`", advice):
        exec(code, {"torch": torch, "model": model})
    assert found(model, torch.randn(40, 3, 9, 9), rule).empty
    assert advice.count("[0, 2]") == 1, "a list of channels is written once"


def test_one_loop_for_places_that_begin_with_other_weights():
    """Fails if places whose weights differ get a piece of advice each, or all begin with the first one's weight."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    advice = [
        "Begin: " + reinitialized(f"{i}", [i, 2], 3, weight=weight) for i, weight in enumerate((0.4, -0.6))
    ]
    ((places, one),) = for_all(advice)
    assert places == (0, 1)
    assert one.count("n.weight") == 1
    (code,) = re.findall(r"`([^`]+)`", one)
    exec(code, {"model": model})
    assert model[0].weight.tolist() == pytest.approx([0.4, 1, 0.4])
    assert model[1].weight.tolist() == pytest.approx([1, -0.6, -0.6])
    ((_, same),) = for_all(["Begin: " + reinitialized(f"{i}", [i], 3) for i in range(2)])
    assert "weight.data[at] = 1;" in same, "one weight for all needs no column"


def test_new_filters_come_with_new_statistics():
    """Fails if random filters are divided by the deviation of decayed ones: their outputs were thousands of times γ."""
    model = decayed_and_dead()
    x = torch.randn(40, 3, 9, 9)
    model.train()
    for _ in range(200):
        model(x)
    model.eval()
    (first, second) = found(model, x, "filters-decayed")["do"]
    for advice in (first, second):
        for code in re.findall(r"`([^`]+)`", advice):
            exec(code, {"torch": torch, "model": model})
    assert model[1].running_var[0] == 1  # type: ignore[index, union-attr]
    assert model[1](model[0](x)).abs().max() < 50  # type: ignore[operator]


def test_advice_that_no_loop_can_give_is_given_place_by_place():
    """Fails if code of which more differs than modules and channels, or with lines after it, becomes a loop or is lost."""
    factors = [f"Scale: {rescaled(Rescale('a', 'b', factor))}." for factor in (2.0, 3.0)]
    lines = [f"One step: `n = {module(name)}`, `step(n)`." for name in ("a", "b")]
    for advice in (factors, lines):
        assert for_all(advice) == [((0,), advice[0]), ((1,), advice[1])]
        assert for_all(advice[:1] * 2) == [((0, 1), advice[0])]
    alike = [f"Scale: {rescaled(Rescale(f'conv{i}', f'bn{i}', 2.0))}." for i in (1, 2)]
    assert for_all(alike) == [((0, 1), advice_of_both(alike))]
    assert for_all([alike[0], lines[0], alike[1]]) == [((0, 2), advice_of_both(alike)), ((1,), lines[0])]


def advice_of_both(alike: list[str]) -> str:
    """The first with variables for its paths, in a loop."""
    body = alike[0].replace('"conv1"', "producer").replace('"bn1"', "name")
    return body.replace("`", '`for producer, name in [("conv1", "bn1"), ("conv2", "bn2")]: ', 1)


def row(kind: str = "batch_norm", class_name: str = "BatchNorm2d") -> pd.Series:
    return pd.Series({"layer": "bn", "kind": kind, "class_name": class_name})


@pytest.mark.parametrize(
    ("norm", "code", "edit"),
    [
        (row(), "update_bn(loader, model)", Recalibrate()),
        (row("instance_norm", "InstanceNorm2d"), "v.flatten(2).var(2).mean(0)", RecalibrateOne("bn", of_samples=True)),
        (row("batch_norm", "FrozenBatchNorm2d"), "flatten(1).var(1)", RecalibrateOne("bn", of_samples=False)),
    ],
)  # fmt: skip
def test_statistics_are_made_anew_by_what_the_norm_is(norm: pd.Series, code: str, edit: object) -> None:
    """Fails if words and edit are for different norms."""
    assert code in recalibrate(norm)
    assert recalibration(norm) == edit


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("batch_norm:17", True),
        ("block.1.layer_norm:3", True),
        ("block.rms_norm:3[64]", True),
        ("batch_norm", False),
        ("my_batch_norm:3", False),
        ("batch_norm:17.more", False),
    ],
)
def test_the_site_of_a_function(layer: str, expected: bool) -> None:
    """Fails if a module is taken for a function's call, or the reverse."""
    assert is_function(layer) is expected
    advice = in_words(f"Set it: `{module(layer)}.eps = 1`, and so on.")
    by_hand = "Set it: do so by hand in the code that calls the function, and so on."
    assert (advice == by_hand) is expected


@pytest.mark.parametrize(
    ("channels", "changes", "code"),
    [
        ((0, 2), {}, "`at = [0, 2]; n = M; n.weight.data[at] = 1; n.bias.data[at] = 0`"),
        ((0, 1, 2), {}, "`n = M; n.weight.data[:] = 1; n.bias.data[:] = 0`"),
        ((1,), {"has_bias": False}, "`at = [1]; n = M; n.weight.data[at] = 1`"),
        (
            (1,),
            {"first": "a[at]; ", "last": "; b"},
            "`at = [1]; a[at]; n = M; n.weight.data[at] = 1; n.bias.data[at] = 0; b`",
        ),
        ((0, 1, 2), {"first": "a[at]; "}, "`a[:]; n = M; n.weight.data[:] = 1; n.bias.data[:] = 0`"),
    ],
)
def test_the_code_that_reinitializes(channels: tuple[int, ...], changes: dict[str, Any], code: str) -> None:
    """Fails if channels are listed where all are meant, or a bias that is not there is set."""
    assert reinitialized("bn", channels, 3, **changes) == code.replace("M", module("bn"))


@pytest.mark.parametrize(
    ("skip", "offset", "others", "weight"),
    [
        ("", 0.0, [0.2, 0.3], 1.0),
        ("", 1.0, [0.2, 0.3], 0.0),
        ("bn0", 0.0, [0.2, -0.3], 0.25),
        ("bn0", 1.0, [0.2, 0.3], -0.75),
        ("bn0", 0.0, [0.0, 0.0], 1.0),
        ("bn0", 0.0, [], 1.0),
    ],
)
def test_a_scale_begins_again_as_its_norm_stores_it(
    skip: str, offset: float, others: list[float], weight: float
) -> None:
    """Fails if γ of 1 + w becomes 2, or a branch that may begin at 0 gets a γ far beyond those of its other channels."""
    n = len(others) + 1
    site = pd.Series({"layer": "bn", "skip": skip, "gamma_offset": offset})
    channels = pd.DataFrame({"channel": range(n), "gamma": [math.nan, *others], "beta": math.nan})
    found = channels[:1]
    assert made_new_edit(site, found, channels) == Reinitialize("bn", (0,), weight=pytest.approx(weight))
    code = made_new(site, found, channels)
    assert f"n.weight.data[{'at' if others else ':'}] = {weight:g}`" in code, "no bias is set where none is"


def test_a_scale_of_one_plus_w_is_one() -> None:
    """Fails if the weight of a norm that adds 1 to it is set to 1."""
    assert unit_scale(pd.Series({"layer": "bn", "gamma_offset": 0.0})).startswith("torch.nn.init.ones_(")
    assert unit_scale(pd.Series({"layer": "bn", "gamma_offset": 1.0})).endswith(".weight, 0)")


@pytest.mark.parametrize("with_eps", [True, False])
@pytest.mark.parametrize("with_gamma", [True, False])
def test_rescaled_weights_leave_the_output(with_eps: bool, with_gamma: bool) -> None:
    """Fails if a running statistic is scaled by another power, or the correction for eps is upside down.

    Of eps as large as the variance, only a scaled eps or a corrected γ leaves it.
    """
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3).double(), nn.BatchNorm2d(4, eps=0.5).double().eval()
    norm.running_var.uniform_(0.2, 2.0)  # type: ignore[union-attr]
    model, x = nn.ModuleDict({"conv": conv, "bn": norm}), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    before = norm(conv(x))
    code = rescaled(Rescale("conv", "bn", 3.0, with_eps=with_eps, with_gamma=with_gamma))
    exec(code.strip("`"), {"model": model, "torch": torch})
    same = torch.allclose(norm(conv(x)), before, rtol=1e-9, atol=1e-12)
    # one of the two must be done, and not both: then γ is corrected for what is no longer wrong
    assert same is (with_eps != with_gamma)


def place(layer: str, at: str) -> str:
    return f"Do so: `at = {at}; {module(layer)}.weight.data[at] = 1`, now."


def test_a_loop_names_the_channels_of_each_place() -> None:
    """Fails if channels are left out of the loop, or a loop over modules alone has brackets around each."""
    both = [place("a", "[0, 2]"), place("b", "[1]")]
    loop = 'for name, at in [("a", [0, 2]), ("b", [1])]: model.get_submodule(name).weight.data[at] = 1'
    assert for_all(both) == [((0, 1), f"Do so: `{loop}`, now.")]
    plain = [f"Do so: `{module(layer)}.eval()`." for layer in "ab"]
    assert for_all(plain) == [((0, 1), 'Do so: `for name in ["a", "b"]: model.get_submodule(name).eval()`.')]
    assert for_all(["Nothing.", "Nothing.", "Look."]) == [((0, 1), "Nothing."), ((2,), "Look.")]


@pytest.mark.parametrize(
    "code",
    ["x = 1", f"{module('a')}.x = {module('b')}.x = {module('c')}.x", f"if {module('L')}: pass", f"{module('L')}.x = ("],
)  # fmt: skip
def test_code_that_no_loop_can_hold(code: str) -> None:
    """Fails if code about no module or three, a statement of its own, or what is no Python is put into a loop."""
    advice = [f"Do so: `{code.replace('L', layer)}`." for layer in "ab"]
    assert len(for_all(advice)) == len(set(advice))


def test_edits_of_several_places_are_each_carried_out_once() -> None:
    """Fails if an edit is made twice, or what undoes a cause is lost."""
    one, two = remedy(Recalibrate(), None, InFloat32("a")), undoing(Recalibrate(), InFloat32("b"))
    assert one is not None
    assert one.edits == (Recalibrate(), InFloat32("a"))
    assert one.cause == ()
    both = all_of([one, two])
    assert both.edits == (Recalibrate(), InFloat32("a"), InFloat32("b"))
    assert both.cause == (Recalibrate(), InFloat32("b"))
    assert remedy(None) is None
    assert remedy() is None


def test_edits_do_no_more_than_they_say() -> None:
    """Fails if an edit does, without being asked, what changes more than its advice."""
    assert Recalibrate().dropout
    assert not RecalibrateOne("bn").of_samples
    assert not Rescale("conv", "bn", 2.0).with_eps
    assert not Rescale("conv", "bn", 2.0).with_gamma
    assert not Reinitialize("bn", (0,)).statistics
    assert not Freeze(("bn",)).eval_mode
    assert SetGamma("bn").value == 1.0
    assert not UndoMap((1.0,), (0.0,)).reverse


def test_advice_is_one_only_where_all_but_its_last_code_is_the_same() -> None:
    """Fails if words after the code, or before it, or earlier code of one place are given for another."""
    one, two = (f"`{module(layer)}.eval()`" for layer in "ab")
    for before in ("Do so: {}. Then look.", "Do so: {}, as here."):
        both = [before.format(one), f"Do so: {two}. Then run."]
        assert for_all(both) == [((0,), both[0]), ((1,), both[1])]
    first = [f"First: {one}.", f"Then: {two}."]
    assert for_all(first) == [((0,), first[0]), ((1,), first[1])]
    earlier = [f"`x = 1`, then {one}.", f"`x = 2`, then {two}."]
    assert for_all(earlier) == [((0,), earlier[0]), ((1,), earlier[1])]
