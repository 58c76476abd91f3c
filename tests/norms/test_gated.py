"""Norms with a gate: the product is what is normalized, or the output is multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.experiments.feature_scales import is_feature_norm
from bnprobe.norms import Gate, describe
from bnprobe.norms.gated import argument_of, gate_in
from bnprobe.norms.lookalike import _groups_at_a_position

N, T, C, EPS = 3, 5, 6, 1e-3
"""A large eps, so that the gate of the wrong side shows in small products."""


class GatedRMSNorm(nn.Module):
    """As transformers writes Mamba-2's, and those of other families by `before` and `activation`."""

    def __init__(self, n_groups: int = 1, before: bool = True, activation: str = "silu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, C))
        self.variance_epsilon, self.group_size = EPS, C // n_groups
        self.activation, self.multiplies_first = activation, before

    def forward(self, hidden_states: Tensor, gate: Tensor | None = None) -> Tensor:
        act = {"silu": F.silu, "sigmoid": torch.sigmoid}[self.activation]
        factor = 1.0 if gate is None else act(gate)
        x = hidden_states * factor if self.multiplies_first else hidden_states
        groups = x.unflatten(-1, (-1, self.group_size))
        z = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + self.variance_epsilon)
        y = self.weight * z.flatten(-2)
        return y if self.multiplies_first else y * factor


class Mixer(nn.Module):
    """A gated norm in a model, whose gate is an activation of the same tokens."""

    def __init__(self, norm: nn.Module, named: bool = False) -> None:
        super().__init__()
        self.x, self.z, self.norm, self.named = nn.Linear(C, C), nn.Linear(C, C), norm, named

    def forward(self, x: Tensor) -> Tensor:
        z = self.z(x)
        y: Tensor = self.norm(self.x(x), gate=z) if self.named else self.norm(self.x(x), z)
        return y


def recorded(model: nn.Module, x: Tensor) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        model(x)
    return probe.recording


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("named", [False, True], ids=["by place", "by name"])
@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
@pytest.mark.parametrize("n_groups", [1, 2])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_gate_is_part_of_the_formula(x, before: bool, n_groups: int, activation: str, named: bool):
    """Fails if a healthy gated norm is said to do more than a norm, or what is read before it is not what it normalizes."""
    torch.manual_seed(1)
    model = Mixer(GatedRMSNorm(n_groups, before, activation), named).double()
    found = recorded(model, x)
    (record,) = found.layers
    assert record.mismatch < 1e-9
    assert "more-than-a-norm" not in set(bnprobe.report(found).findings["rule"])
    with torch.no_grad():
        factor = {"silu": F.silu, "sigmoid": torch.sigmoid}[activation](model.z(x))
        normalized = model.x(x) * factor if before else model.x(x)
    rows = normalized.reshape(-1, C).numpy()
    np.testing.assert_allclose(record.pre.mean, rows.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(record.pre.m2, rows.var(0) * N * T, rtol=1e-9)


def test_a_call_without_a_gate_is_one_of_a_plain_norm(x):
    """Fails if a norm whose gate is None is left unread, or multiplied by something."""
    norm = GatedRMSNorm().double()
    (record,) = recorded(nn.Sequential(norm), x).layers
    assert record.mismatch < 1e-9
    np.testing.assert_allclose(record.pre.mean, x.reshape(-1, C).numpy().mean(0), rtol=1e-9)


def test_gradients_of_a_gated_norm_are_its_own(x):
    """Fails if the walk from the output runs past the gate into the model and finds nothing, or the gradient of one factor
    passes for that of what is normalized."""
    torch.manual_seed(1)
    long = nn.Sequential(*(nn.Sequential(nn.Linear(C, C), nn.Tanh()) for _ in range(150)))
    model = nn.Sequential(long, Mixer(GatedRMSNorm())).double()
    with bnprobe.attach(model) as probe:
        (model(x) * torch.linspace(-1, 2, C)).sum().backward()
    (record,) = probe.recording.layers
    assert record.gradient is not None
    np.testing.assert_allclose(record.gradient.gamma.mean, model[1].norm.weight.grad, rtol=1e-9)
    assert record.gradient.dx is None


def test_a_side_that_the_module_tells_is_the_only_one_tried():
    """Fails if `norm_before_gate` of mamba_ssm and Falcon-H1 is read the wrong way round, or passed over."""
    norm = GatedRMSNorm()
    assert [plan.gate.before for plan in describe(norm) if plan.gate is not None][::8] == [True, False]
    norm.norm_before_gate = True
    assert {plan.gate for plan in describe(norm)} == {Gate(before=False)}
    norm.norm_before_gate, norm.activation = False, "sigmoid"
    assert {plan.gate for plan in describe(norm)} == {Gate(before=True, activation="sigmoid")}


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("group_size", 2, {3, 1}),
        ("n_groups", 2, {2, 1}),
        ("group_size", 4, {1}),
        ("group_size", None, {1}),
        ("ngroups", 2, {1, 2, 3}),
        ("heads", 6, {1}),
        ("bias", True, {1}),
    ],
)
def test_groups_are_what_the_module_tells(attribute: str, value: Any, expected: set[int]):
    """Fails if the size of a group is taken for their number, or one that does not divide the channels ends the survey."""
    norm = GatedRMSNorm()
    del norm.group_size
    setattr(norm, attribute, value)
    assert {plan.n_groups for plan in describe(norm)} == expected


class GroupedRMSNorm(nn.Module):
    """With the number of its groups under a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, C))
        self.eps, self.g = EPS, 2

    def forward(self, x: Tensor) -> Tensor:
        groups = x.unflatten(-1, (self.g, -1))
        z = groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * z.flatten(-2)


def test_groups_may_have_any_name(x):
    """Fails if a healthy norm whose groups go by another name is said to do more than a norm."""
    found = recorded(nn.Sequential(GroupedRMSNorm()).double(), x)
    assert found.layers[0].mismatch < 1e-9
    assert "more-than-a-norm" not in set(bnprobe.report(found).findings["rule"])


class OtherNorm(nn.Module):
    def forward(self, x: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        return x


def test_a_gate_is_the_argument_behind_the_input():
    """Fails if another argument of a norm, such as a residual, is taken for a gate, or integers are."""
    assert argument_of(GatedRMSNorm()) == "gate"
    assert argument_of(OtherNorm()) is argument_of(nn.LayerNorm(C)) is None
    x = torch.ones(2, C)
    assert gate_in(GatedRMSNorm(), (x, x), {}) is x
    assert gate_in(GatedRMSNorm(), (x,), {"gate": x}) is x
    assert gate_in(GatedRMSNorm(), (x,), {}) is None
    assert gate_in(GatedRMSNorm(), (x, x.long()), {}) is None
    assert gate_in(OtherNorm(), (x, x), {}) is None


def test_scales_of_gated_norms_are_not_replaced():
    """Fails if an experiment divides the input of a gated norm, which is only one factor of what it normalizes."""
    assert not any(map(is_feature_norm, describe(GatedRMSNorm())))
    assert is_feature_norm(describe(nn.RMSNorm(C))[0])


def test_an_activation_that_no_gate_has_is_refused():
    """Fails if a misspelled activation is found at the first pass only."""
    with pytest.raises(bnprobe.BnprobeError, match="Use one of silu, swish, sigmoid"):
        Gate(before=True, activation="sigmiod")


@pytest.mark.parametrize(
    ("told", "groups"),
    [
        ({"n_groups": 3}, (3, 1)),
        ({"group_size": 2}, (3, 1)),
        ({"group_size": 6}, (1,)),
        ({"group_size": 0}, (1,)),
        ({"group_size": None}, (1,)),
        ({"n_groups": 4}, (1,)),
        ({}, (1,)),
    ],
)
def test_how_many_groups_a_module_tells(told, groups):
    """Fails if a size of 0 is divided by, or a number is believed that leaves channels over; of 6 channels."""
    module = nn.Identity()
    for name, value in told.items():
        setattr(module, name, value)
    assert _groups_at_a_position(module, C) == groups
