"""Operations in place, around a norm and inside one: they destroy what a hook has kept."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support import oracles
from support.models import BY_NAME, BatchNormAct2d, C, learn
from support.runs import recorded
from support.witness import Witness, assert_recording_true
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe

BN = BY_NAME["batch norm"]


class InPlaceABN(nn.BatchNorm2d):
    """As in inplace_abn: norm and leaky ReLU in one, written over the input."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(super().forward(x), 0.01)
        with torch.no_grad():
            x.copy_(y)
        return y


class Overwrites(nn.Module):
    """A norm by its looks that works in place and returns its input."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight / (self.running_var + self.eps).sqrt()
        with torch.no_grad():
            return (
                x.sub_(self.running_mean[:, None, None])
                .mul_(scale[:, None, None])
                .add_(self.bias[:, None, None])
            )


class Residual(nn.Module):
    """The norm's output is written over twice, inside: a branch is added to it, and negative values go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(C, C, 1), nn.BatchNorm2d(C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y += x
        return F.relu(y, inplace=True)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("inside", [False, True], ids=["outside the model", "inside"])
def test_an_operation_in_place_after_the_norm(inside: bool, training: bool):
    """Fails if a hook makes the output a view that may not be written, or the output is read too late."""
    torch.manual_seed(3)
    model = Residual() if inside else nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C))
    model.double().train(training)
    bare, x = copy.deepcopy(model), BN.batches()[0]

    def run(net: nn.Module) -> Tensor:
        y = net(x)
        if not inside:
            y += x  # a residual connection
        y.square().sum().backward()
        return y

    witness = Witness(model, ["bn" if inside else "1"])
    with bnprobe.attach(model) as probe, witness.watching():
        y = run(model)
    record = probe.recording.layers[0]
    ((call,),) = witness.calls.values()
    oracles.assert_same_moments(record.post, oracles.channel_moments(BN.norms["0"].rows(call.y)), 1e-9)
    assert record.post.low.min() < -0.1
    assert record.gradient.n_passes == 1
    assert torch.equal(y, run(bare))
    for mine, its in zip(model.parameters(), bare.parameters(), strict=True):
        assert torch.equal(mine.grad, its.grad)


def test_an_operation_in_place_before_the_norm_returns():
    """Fails if the input is read after the norm has run: an in-place norm has destroyed it by then."""
    model = nn.Sequential(Overwrites(C)).double().eval()
    learn(model)
    batches = BN.batches()
    expected = oracles.moments(
        torch.cat([x.flatten(2).transpose(1, 2).flatten(0, 1) for x in batches]).numpy()
    )
    with torch.no_grad():
        record = recorded(model, *[x.clone() for x in batches]).layers[0]
    oracles.assert_same_moments(record.pre, expected, 1e-9)
    assert record.output == "derived"
    assert record.mismatch < 1e-9


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_in_place_activated_batch_norm(training: bool):
    """Fails if the module's output, which is past an activation, is given out as the norm's without a word."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Identity(), InPlaceABN(C)).double().train(training)
    learn(model)
    batches = BN.batches()
    rows = torch.cat([x.flatten(2).transpose(1, 2).flatten(0, 1) for x in batches]).numpy()
    with torch.no_grad():
        record = recorded(model, *[x.clone() for x in batches]).layers[0]
    oracles.assert_same_moments(record.pre, oracles.moments(rows), 1e-9)
    assert (record.output, record.normalized_by) == ("read", "batch" if training else "running")
    assert record.mismatch > 0.01


def test_a_norm_with_its_activation_inside():
    """Fails if timm's norm+activation modules are read as plain norms: the mismatch must say so."""
    case = BY_NAME["fused activation"]
    model = case.model()
    assert isinstance(model[0], BatchNormAct2d)
    witness = Witness(model, list(case.norms))
    with bnprobe.attach(model) as probe:
        for x in case.batches():
            with witness.watching():
                model(x)
    assert_recording_true(probe.recording, case, witness)
    record = probe.recording.layers[0]
    assert record.mismatch > 0.01
    np.testing.assert_array_equal(record.post.low >= 0, True)


def test_in_place_relu_does_not_reach_the_output():
    """Fails if the output is read after the next layer changed it: its minimum would be 0."""
    case = BY_NAME["in-place ReLU"]
    record = recorded(case.model(), *case.batches()).layers[0]
    assert record.post.low.min() < -0.1
