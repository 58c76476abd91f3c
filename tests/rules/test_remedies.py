"""Advice that is code, run on real norms: those that torch's update_bn passes over."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.rules.edits import Rescale
from bnprobe.rules.remedies import for_all, module, rescaled

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
