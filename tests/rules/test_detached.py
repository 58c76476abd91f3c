"""Norms whose mean and variance are detached, told from norms to which nothing comes that they could remove."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnprobe

VIOLATED = "identity-violated"


class Norm(nn.Module):
    """A layer norm, or a batch norm, whose mean and variance may be detached."""

    def __init__(self, dim: int, detached: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(12) + 0.5), nn.Parameter(torch.randn(12))
        self.dim, self.detached, self.eps = dim, detached, 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        at = x.detach() if self.detached else x
        var, mean = torch.var_mean(at, self.dim, correction=0, keepdim=True)
        return self.weight * (x - mean) / (var + self.eps).sqrt() + self.bias


class LayerNorm(Norm):
    pass


class Stored(Norm):
    """Known as a batch norm by what it stores."""

    def __init__(self, dim: int, detached: bool) -> None:
        super().__init__(dim, detached)
        self.register_buffer("running_mean", torch.zeros(12))
        self.register_buffer("running_var", torch.ones(12))


@pytest.mark.parametrize("detached", [True, False])
@pytest.mark.parametrize(("cls", "dim"), [(LayerNorm, -1), (Stored, 0)])
def test_detached_statistics_are_named(cls: type[Norm], dim: int, detached: bool) -> None:
    """Fails if a gradient that passes as if mean and variance were constants is not told, or that of a plain norm is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), cls(dim, detached), nn.ReLU(), nn.Linear(12, 1))
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            model(torch.randn(40, 8)).square().mean().backward()
    found = bnprobe.report(probe).findings
    found = found[found["rule"] == VIOLATED]
    assert found[["severity", "layer"]].to_numpy().tolist() == [["warning", "1"]] * detached
    assert found["says"].str.contains("detached").tolist() == [True] * detached


@pytest.mark.parametrize("between", [nn.Identity(), nn.Linear(12, 12, bias=False)], ids=["norm", "linear"])
def test_a_gradient_that_has_nothing_to_be_removed_is_not_of_a_detached_norm(between: nn.Module) -> None:
    """Fails if a norm before another one, whose gradient is free of these parts already, is called detached."""
    torch.manual_seed(0)
    norms = (nn.LayerNorm(12, eps=0.0, elementwise_affine=False) for _ in range(2))
    first, second = norms
    model = nn.Sequential(nn.Linear(8, 12), first, between, second, nn.ReLU(), nn.Linear(12, 1)).double()
    with bnprobe.attach(model) as probe:
        for _ in range(3):
            model(torch.randn(40, 8).double()).square().mean().backward()
    report = bnprobe.report(probe)
    if isinstance(between, nn.Identity):
        assert abs(report.layers["energy_removed_layer"][0]) < 1e-9
    assert VIOLATED not in set(report.findings["rule"])
