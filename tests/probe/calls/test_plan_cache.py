"""A layer that has changed is seen to have, however it was changed; one that has not costs nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe import register_norm
from bnprobe.norms import NormLayer, describe
from bnprobe.norms.registry import _registered
from bnprobe.probe.calls.plan_cache import PlanCache

C = 4


def norm() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(C).eval()
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            tensor.uniform_(0.5, 2)
    return layer


def test_an_unchanged_layer_gives_the_same_objects():
    """Fails if every call copies and describes again: that is the cost this saves."""
    layer, watch = norm(), PlanCache()
    plans = watch.plans(layer)
    assert watch.plans(layer) is plans
    assert watch.vectors(plans[0]) is watch.vectors(plans[0])


WRITES = {
    "data": lambda t: t.data.mul_(2),
    "no grad": lambda t: t.detach().add_(1),
    "one entry": lambda t: t.data.__setitem__(C - 1, 7.0),
    "nan": lambda t: t.data.fill_(float("nan")),
    "sign of zero": lambda t: t.data.__setitem__(0, -0.0),
    "numpy": lambda t: t.detach().numpy().__setitem__(1, 3.0),
}


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_value_written_in_place_is_seen(write, name):
    """Fails if the copy is trusted by version counters, which `.data` and numpy pass by."""
    layer, watch = norm(), PlanCache()
    plan = watch.plans(layer)[0]
    before = watch.vectors(plan)
    write(getattr(layer, name))
    after = watch.vectors(watch.plans(layer)[0])
    field = {"weight": "gamma", "bias": "beta"}.get(name, name)
    assert after is not before
    assert np.array_equal(
        getattr(after, field), getattr(layer, name).detach().double().numpy(), equal_nan=True
    )
    unchanged = {"gamma", "beta", "running_mean", "running_var"} - {field}
    assert all(getattr(after, other) is getattr(before, other) for other in unchanged)


def test_other_memory_is_seen():
    """Fails if a parameter whose storage was swapped, or freed as sharding does, is read where it was."""
    layer, watch = norm(), PlanCache()
    watch.vectors(watch.plans(layer)[0])
    kept = layer.weight.data  # as it was, where it was: only the parameter is elsewhere
    layer.weight.data = torch.full((C,), 5.0)
    assert watch.vectors(watch.plans(layer)[0]).gamma.tolist() == [5.0] * C
    layer.weight = nn.Parameter(torch.full((C,), 6.0))
    assert watch.vectors(watch.plans(layer)[0]).gamma.tolist() == [6.0] * C
    storage = layer.weight.untyped_storage()
    size = storage.size()
    storage.resize_(0)
    storage.resize_(size)
    layer.weight.data.fill_(8.0)
    assert watch.vectors(watch.plans(layer)[0]).gamma.tolist() == [8.0] * C
    assert len(kept) == C


CHANGES = {
    "training": True,
    "eps": 0.5,
    "momentum": None,
    "running_mean": None,
    "weight": None,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_changes_is_seen(name):
    """Fails if the plan of the last call outlives the layer's eps, mode, or tensors."""
    layer, watch = norm(), PlanCache()
    watch.plans(layer)
    setattr(layer, name, CHANGES[name])
    assert watch.plans(layer) == describe(layer)


def test_a_class_taught_since_is_seen():
    """Fails if `register_norm` for one of torch's own classes comes too late for a probe that is attached."""
    layer, watch = nn.LayerNorm(C), PlanCache()
    assert watch.plans(layer)[0].kind == "layer_norm"
    mine = NormLayer("mine", "channels", C, 1e-5, channels="last")
    register_norm(nn.LayerNorm, lambda module: mine)
    try:
        assert watch.plans(layer) == (mine,)
    finally:
        del _registered[nn.LayerNorm]


def test_plans_that_add_to_gamma_differently_have_their_own():
    """Fails if w and 1 + w share one copy."""
    plan, watch = describe(nn.LayerNorm(C))[0], PlanCache()
    other = replace(plan, weight_offset=1.0)
    assert watch.vectors(plan).gamma.tolist() == [1.0] * C
    assert watch.vectors(other).gamma.tolist() == [2.0] * C
    assert watch.vectors(plan).gamma.tolist() == [1.0] * C


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats(dtype):
    """Fails if a format without a numpy type of its own is not watched."""
    layer, watch = norm().to(dtype), PlanCache()
    before = watch.vectors(watch.plans(layer)[0])
    assert watch.vectors(watch.plans(layer)[0]) is before
    layer.weight.data[0] = 3.0
    assert watch.vectors(watch.plans(layer)[0]).gamma[0] == 3.0


def test_a_parameter_can_still_be_resized_after_a_run():
    """Fails if numpy was let near a user's tensor: torch then pins its storage for good, and sharding fails."""
    model = nn.Sequential(nn.BatchNorm2d(C), nn.Conv2d(C, C, 1), nn.BatchNorm2d(C), nn.Flatten()).double()
    x = torch.randn(3, C, 5, 5, dtype=torch.float64, requires_grad=True)
    for training in (True, False):
        model.train(training)
        with bnprobe.attach(model) as probe:
            y = model(x)
            y.sum().backward()
        bnprobe.report(probe)
    for tensor in (x, y, x.grad, *model.state_dict().values(), *(p.grad for p in model.parameters())):
        assert tensor.untyped_storage().resizable()
