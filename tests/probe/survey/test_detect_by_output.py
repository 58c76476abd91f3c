"""Norms by behaviour: modules of unknown classes whose output is a normalization of their input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C, StrangeNorm
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.probe.survey import detect_by_output
from bnprobe.probe.survey.detect_by_output import normalized, proposal

X = BY_NAME["batch norm"].batches(sizes=(5,))[0]


class Scaled(nn.Module):
    """Vectors as a custom layer has them, under names of its own."""

    def __init__(self, n: int = C) -> None:
        super().__init__()
        self.g, self.b = nn.Parameter(torch.rand(n) + 0.5), nn.Parameter(torch.randn(n))

    def scale(self, x: Tensor) -> Tensor:
        return x * self.g[:, None, None] + self.b[:, None, None]


class OverPositions(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale((x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + 1e-5).sqrt())


class OverChannels(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x * x.square().mean(1, keepdim=True).add(1e-6).rsqrt())


class OverTheBatch(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale(
            (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
        )


class OverGroups(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x.repeat(1, 2, 1, 1).unflatten(1, (2, 3))
        return self.of(y).flatten(1, 2)[:, :3]

    @staticmethod
    def of(y: Tensor) -> Tensor:
        return (y - y.mean((2, 3, 4), keepdim=True)) / y.var((2, 3, 4), keepdim=True).sqrt()


class OverTheLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x - x.mean(-1, keepdim=True), dim=-1)


def noted(module: nn.Module, x: Tensor = X) -> list[str]:
    model = nn.Sequential(nn.BatchNorm2d(x.shape[1]), module).double().eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        for _ in range(2):
            model(x)
    assert probe.recording.integrity.changes == ()
    return [note for note in probe.recording.about.notes if "behaves like a norm" in note]


@pytest.mark.parametrize(
    ("module", "axes", "options"),
    [
        (OverPositions, (2, 3), "pools='instance', channels='first'"),
        (OverChannels, (1,), "pools='channels', channels='first', centred=False"),
        (OverTheBatch, (0, 2, 3), "pools='batch', channels='first'"),
        (OverGroups, (1, 2, 3), "pools='group', channels='first'"),
        (OverTheLast, (3,), "pools='channels', channels='last'"),
    ],
)
def test_a_norm_by_behaviour_is_proposed_with_its_axes(module: Any, axes: tuple[int, ...], options: str):
    """Fails if a module that normalizes is not found out, once per class, or its axes are wrong."""
    torch.manual_seed(3)
    (note,) = noted(module())
    assert note.startswith(f"1 ({module.__name__}) behaves like a norm")
    assert f"along axes {axes}" in note
    assert options in note


class Affine(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return self.scale(x)


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Gate(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


@pytest.mark.parametrize("module", [Affine, Swish, Constant, Gate, StrangeNorm, nn.ReLU, nn.Identity])
def test_what_does_not_normalize_is_not_proposed(module: Any):
    """Fails if an affine map, a gate, an activation or a constant is taken for a norm."""
    torch.manual_seed(3)
    assert noted(module()) == []


class GateNorm(Gate):
    """A gate that is named like a norm."""


class OddNorm(OverChannels):
    """A norm that is not understood by its attributes."""


@pytest.mark.parametrize(("module", "marked"), [(GateNorm, True), (OddNorm, False)])
def test_what_is_only_named_like_a_norm_is_told_apart(module: Any, marked: bool):
    """Fails if every module with norm in its name is called a norm that is missing, or one that does normalize is not."""
    model = nn.Sequential(nn.BatchNorm2d(C), module()).double()
    with bnprobe.attach(model.eval()) as probe:
        before = probe.recording.not_understood
        model(X)
    assert before == (f"1 ({module.__name__})",)
    assert probe.recording.not_understood == (f"1 ({module.__name__}){' (no norm)' * marked}",)


def test_what_was_proposed_can_be_registered(monkeypatch):
    """Fails if the options of a proposal are not those of the layer: taught, it must fit the real output."""
    monkeypatch.setattr("bnprobe.norms.registry._registered", {})
    torch.manual_seed(3)
    bnprobe.register_norm(
        OverPositions,
        lambda m: bnprobe.NormLayer(
            kind="mine", n_channels=C, eps=1e-5, pools="instance", channels="first", weight=m.g, bias=m.b
        ),
    )
    model = nn.Sequential(OverPositions()).double()
    with bnprobe.attach(model) as probe:
        model(X)
    (record,) = probe.recording.layers
    # the module divides by the variance with divisor n - 1, which is more than rounding
    assert 1e-4 < record.mismatch < 0.1


def test_behind_another_norm_no_batch_is_seen():
    """Fails if an RMS norm, which changes little of what a layer norm has put out, is taught as a batch norm."""
    x = F.layer_norm(torch.randn(5, 7, 16, dtype=torch.float64), (16,))
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    found = proposal("2", "MyRMS", x, y, [torch.ones(16, dtype=torch.float64)])
    assert found is None or found.pools == "channels"


def test_a_group_norm_is_distinguished_from_its_parts():
    """Fails if groups of channels are taken for all of them, or for each alone."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 6, 5, 7, generator=generator, dtype=torch.float64)
    x = x * torch.arange(1, 7)[:, None, None] + torch.randn(
        4, 6, 1, 1, generator=generator, dtype=torch.float64
    )
    for n_groups in (1, 2, 3):
        found = proposal("here", "Mine", x, F.group_norm(x, n_groups))
        assert found is not None
        assert (found.pools, found.n_groups, found.axes) == ("group", n_groups, (1, 2, 3))
    assert proposal("here", "Mine", x, x * 3 + 1) is None
    assert proposal("here", "Mine", x, torch.full_like(x, torch.nan)) is None


def test_zero_centred_gains():
    """Fails if the weight of a Gemma-like norm is printed as its gamma."""
    case = BY_NAME["RMS norm of 1 + w"]
    model = case.model()
    with bnprobe.attach(model) as probe:
        model(case.batches()[0])
    np.testing.assert_array_equal(probe.recording.layers[0].gamma, 1 + model[0].weight.detach().numpy())


def test_frozen_norms_are_in_evaluation_whatever_their_flag():
    """Fails if a FrozenBatchNorm in a model that trains is shown as training."""
    case = BY_NAME["frozen"]
    model = case.model(training=True)
    with bnprobe.attach(model) as probe:
        model(case.batches()[0])
    record = probe.recording.layers[0]
    assert (record.mode, record.normalized_by) == ("eval", "running")


@pytest.mark.parametrize("act", [nn.Identity(), nn.ReLU(), nn.Softplus()], ids=lambda act: type(act).__name__)
def test_what_is_no_norm_costs_next_to_nothing(act, monkeypatch):
    """Fails if every grouping of channels is tried on modules that no row of theirs calls for."""
    tried = []
    monkeypatch.setattr(
        detect_by_output, "normalized", lambda x, *more: tried.append(x.numel()) or normalized(x, *more)
    )
    x = torch.randn(2, 96, 56, 56, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert proposal("act", "Act", x, act(x)) is None
    assert len(tried) <= 4
    assert sum(tried) < x.numel()
