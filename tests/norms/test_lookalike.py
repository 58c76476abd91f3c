"""Classes that are norms by name and attributes only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import C, FaceRMSNorm, FirstLayerNorm, L, PlusOneRMSNorm
from torch import nn

import bnprobe
from bnprobe.norms import describe


def test_look_alikes_offer_every_reading():
    """Fails if 1 + w, channels first or the centred reading is never tried for a class known by name."""
    plans = describe(FaceRMSNorm(C))
    assert {(p.kind, p.weight_offset, p.channels) for p in plans} == {
        (kind, offset, channels)
        for kind in ("rms_norm", "layer_norm")
        for offset in (0.0, 1.0)
        for channels in ("first", "last")
    }
    assert plans[0].eps == 1e-6
    assert (plans[0].kind, describe(FirstLayerNorm(C))[0].kind) == ("rms_norm", "layer_norm")


def test_a_group_norm_by_its_looks():
    """Fails if the number of groups is not read from the module."""

    class MyGroupNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.num_groups, self.eps = nn.Parameter(torch.ones(6)), 2, 1e-5

    (plan,) = describe(MyGroupNorm())
    assert (plan.kind, plan.pools, plan.n_groups, plan.n_channels) == ("group_norm", "group", 2, 6)


def test_one_plus_w_is_distinguished_from_w():
    """Fails if gamma of a Gemma-like norm is reported as w: with w = 0 it would look dead."""
    model = nn.Sequential(PlusOneRMSNorm(C)).double()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, L, C, dtype=torch.float64))
    np.testing.assert_array_equal(probe.recording.layers[0].gamma, np.ones(C))


class BareRMSNorm(nn.Module):
    """Its eps stands in its code."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(torch.rand(6) + 0.5), offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight + self.offset) * x * (x.square().mean(-1, keepdim=True) + 1e-7).rsqrt()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_an_rms_norm_without_an_eps_is_known_by_what_it_does(offset):
    """Fails if an RMS norm that keeps its eps in its code is not recorded, or its eps passes for known."""
    model = nn.Sequential(nn.Linear(4, 6), BareRMSNorm(offset))
    with bnprobe.attach(model) as probe:
        model(torch.randn(40, 4))
    (row,) = bnprobe.report(probe).layers.itertuples()
    assert (row.kind, row.eps_assumed) == ("rms_norm", 1)
    assert row.mismatch < 1e-4
    np.testing.assert_allclose(
        bnprobe.report(probe).channels["gamma"], model[1].weight.detach().double() + offset, rtol=1e-6
    )


def module(name: str, **attributes: Any) -> nn.Module:
    """A module whose class has this name, with such attributes."""
    made = type(name, (nn.Module,), {})()
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


ONES, EPS = torch.ones(6), 1e-3
STORED = {"weight": ONES, "bias": ONES, "running_mean": ONES, "running_var": ONES}


@pytest.mark.parametrize(
    ("made", "kinds"),
    [
        (module("MyNorm", weight=ONES, eps=EPS), []),
        (module("MyLayerNorm", weight=ONES, eps=EPS), ["layer_norm", "rms_norm"]),
        (module("MyLayerNorm", weight=ONES), []),
        (module("MyLayerNorm", eps=EPS), []),
        (module("MyRMSNorm", weight=ONES), ["rms_norm", "layer_norm"]),
        (module("MyRMSNorm", g=ONES), ["rms_norm", "layer_norm"]),
        (module("MyRMS", weight=ONES, eps=EPS), []),
        (module("MyRMSNorm", weight=ONES, inner=nn.ReLU()), []),
        (module("MyGroupNorm", weight=ONES, eps=EPS, num_groups=3), ["group_norm"]),
        (module("MyGroupNorm", weight=ONES, eps=EPS), []),
        (module("MyGroupLayerNorm", weight=ONES, eps=EPS, num_groups="three"), ["layer_norm", "rms_norm"]),
        (module("Anything", **STORED), ["batch_norm"]),
        (module("Anything", weight=ONES, running_mean=ONES), []),
        (module("Anything", moving_mean=ONES, moving_var=ONES), ["batch_norm"]),
        (module("Anything", moving_mean=ONES, moving_variance=ONES), ["batch_norm"]),
        (module("Anything", weight=ONES, moving_mean=ONES), []),
        (module("MyLayerNorm", a_2=ONES, eps=EPS), ["layer_norm", "rms_norm"]),
        (module("MyLayerNorm", alpha=ONES, eps=EPS), ["layer_norm", "rms_norm"]),
    ],
)
def test_what_looks_like_a_norm(made: nn.Module, kinds: list[str]) -> None:
    """Fails if a name alone, or a vector alone, makes a norm; or a kind is tried that the name does not say."""
    assert list(dict.fromkeys(plan.kind for plan in describe(made))) == kinds


@pytest.mark.parametrize(
    ("name", "training", "uses_running"),
    [
        ("FrozenBatchNorm2d", True, [True, False]),
        ("FrozenBatchNorm2d", False, [True, False]),
        ("OwnBatchNorm2d", True, [False, True]),
        ("OwnBatchNorm2d", False, [True, False]),
    ],
)
def test_a_frozen_batch_norm_uses_what_it_keeps_first(
    name: str, training: bool, uses_running: list[bool]
) -> None:
    """Fails if a class called frozen is first held to use the batch, or another in training the running statistics."""
    plans = describe(module(name, **STORED).train(training))
    assert [plan.uses_running for plan in plans] == uses_running


@pytest.mark.parametrize(
    ("attributes", "eps", "assumed"), [({"eps": EPS}, EPS, False), ({"variance_epsilon": 0}, 0.0, False), ({}, 1e-6, True)]
)  # fmt: skip
def test_an_eps_that_is_told_is_not_assumed(attributes: dict[str, float], eps: float, assumed: bool) -> None:
    """Fails if the usual eps takes the place of one that is there, or passes for known."""
    plans = describe(module("MyRMSNorm", weight=ONES, bias=2 * ONES, **attributes))
    assert {(plan.eps, plan.eps_assumed) for plan in plans} == {(eps, assumed)}
    assert [(plan.kind, plan.centred, plan.weight_offset, plan.channels) for plan in plans] == [
        (kind, kind == "layer_norm", offset, channels)
        for kind in ("rms_norm", "layer_norm")
        for offset in (0.0, 1.0)
        for channels in ("last", "first")
    ]
    assert all(plan.bias is not None and plan.n_channels == 6 for plan in plans)


class TextbookNorm(nn.Module):
    """A batch norm with moving averages of shape (1, C, 1, 1) that are no buffers, and are used where there is no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.rand(1, C, 1, 1)) for _ in range(2))
        self.moving_mean, self.moving_var = torch.zeros(1, C, 1, 1), torch.ones(1, C, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.moving_mean, self.moving_var
        if torch.is_grad_enabled():
            mean = x.mean((0, 2, 3), keepdim=True)
            var = x.var((0, 2, 3), unbiased=False, keepdim=True)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.detach()
            self.moving_var = 0.9 * self.moving_var + 0.1 * var.detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("graph", [True, False])
def test_moving_averages_of_a_textbook_are_running_statistics(graph: bool, training: bool) -> None:
    """Fails if they are not read, are read where the batch was used, or an eps that nobody gave passes for known."""
    torch.manual_seed(0)
    model = nn.Sequential(TextbookNorm()).train(training)
    before = model[0].moving_mean
    with torch.set_grad_enabled(graph), bnprobe.attach(model) as probe:
        x = 2 * torch.randn(4, C, 5, 7) + 1
        model(x)
    (record,) = probe.recording.layers
    assert (record.kind, record.n_calls_running, record.eps_assumed) == ("batch_norm", int(not graph), True)
    assert record.mismatch < 1e-5
    np.testing.assert_array_equal(record.running_mean, before.flatten())
    np.testing.assert_allclose(record.pre.mean, x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(record.beta, model[0].beta.detach().flatten())


def test_an_eps_of_a_textbook_is_taken_from_it() -> None:
    """Fails if the usual eps of batch norms takes the place of one that the module tells."""
    plans = describe(module("Norm", moving_mean=ONES, moving_var=2 * ONES, epsilon=EPS, b_2=3 * ONES))
    assert {(plan.eps, plan.eps_assumed, plan.n_channels) for plan in plans} == {(EPS, False, 6)}
    assert all(torch.equal(plan.bias, 3 * ONES) and torch.equal(plan.running_var, 2 * ONES) for plan in plans)
