"""Models run forward and backward under a probe."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.gradients import Cut, Pull, Site, loss_of
from support.models import BN, C, Case, H, N, Norm, W, learn
from torch import Tensor, nn

import bnprobe
from bnprobe.recording import GradientRecord, Recording

FUSED = "fused activation"
GROUP = Norm("group_norm", "group")
INSTANCE = Norm("instance_norm", "instance")
LAYER = Norm("layer_norm", "channels", last=1)


def wanted(x: Tensor) -> Tensor:
    """A copy that is a leaf and wants a gradient."""
    return x.detach().clone().requires_grad_()


def trained(case: Case, model: nn.Module, batches: list[Tensor], **options: Any) -> Recording:
    """A forward and a backward pass per batch; the input wants a gradient too."""
    with bnprobe.attach(model, **options) as probe:
        for i, x in enumerate(batches):
            torch.manual_seed(i)
            loss_of(case.call(model, wanted(x))).backward()
    return probe.recording


def twins(case: Case, cut: Cut, batches: list[Tensor]) -> list[dict[Site, Pull]]:
    """The same passes in the model that is cut at its norms; checkpointed parts run once, as any other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.models.checkpoint", lambda part, x, use_reentrant: part(x))
        return [
            cut.pulls(lambda model, x=x: loss_of(case.call(model, wanted(x))), seed=i)
            for i, x in enumerate(batches)
        ]


def images(n: int = N, c: int = C, seed: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """One batch of awkward images."""
    return Case("", nn.Identity, {}, shape=(c, H, W)).batches((n,), dtype, seed)[0]


def learned(model: nn.Module, training: bool = True) -> nn.Module:
    """Seeded, float64, with learned-looking vectors."""
    learn(model.double())
    return model.train(training)


def gradients(recording: Recording) -> dict[str, GradientRecord | None]:
    return {record.site: record.gradient for record in recording.layers}


def probed(model: nn.Module, *losses: Callable[[], Tensor]) -> Recording:
    """The recording of some backward passes."""
    with bnprobe.attach(model) as probe:
        for loss in losses:
            loss().backward()
    return probe.recording


class CastingRMSNorm(nn.Module):
    """As in transformers: statistics in float32 whatever the input's type, eps under another name."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.variance_epsilon = 1e-6

    def forward(self, hidden_states: Tensor) -> Tensor:
        kind = hidden_states.dtype
        x = hidden_states.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(kind)


class Beside(nn.Module):
    """The norm's input is used elsewhere too: pre-activation, a transformer's residual, a plain addition."""

    def __init__(self, norm: Callable[[], nn.Module], feeds: bool, in_place: bool = False) -> None:
        super().__init__()
        self.before = nn.Conv2d(C, C, 1) if feeds else nn.Identity()
        self.norm = norm()
        self.conv = nn.Conv2d(C, C, 3, padding=1)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.norm(x)
        if self.in_place:
            y += x
            return y.sigmoid_()
        return self.conv(y) + x * 3 - x.flip(2).abs()


BESIDE = {
    "batch": (lambda: nn.BatchNorm2d(C), BN),
    "instance": (lambda: nn.InstanceNorm2d(C, affine=True), INSTANCE),
    "group": (lambda: nn.GroupNorm(1, C), GROUP),
    "layer": (lambda: nn.LayerNorm(W), LAYER),
    "RMS by its looks": (lambda: CastingRMSNorm(W), replace(LAYER, kind="rms_norm", centred=False)),
}


def one_norm(training: bool = True) -> tuple[nn.Module, Callable[..., dict[Site, Pull]]]:
    """A batch norm behind a convolution, and its twin."""
    build = one_behind_conv(lambda: nn.BatchNorm2d(C))
    model, other = learned(build(), training), build().double().train(training)
    other.load_state_dict(model.state_dict())
    return model, Cut(other, ["1"]).pulls


def one_behind_conv(norm: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(C, C, 3), norm())


def n_tensors() -> int:
    # by type: asking some objects for their class makes them warn
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


FEEDERS = {
    "convolution": lambda: nn.Conv2d(C, 4, 3),
    "without bias": lambda: nn.Conv2d(C, 4, 3, bias=False),
    "grouped": lambda: nn.Conv2d(C, 6, 3, groups=3),
    "strided": lambda: nn.Conv2d(C, 4, 3, stride=2, padding=1),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 4)),
    "linear without bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 4, bias=False)),
}


def fed(name: str, training: bool) -> tuple[nn.Module, nn.Module]:
    """A norm behind something with weights, and these."""
    torch.manual_seed(3)
    producer = FEEDERS[name]()
    n = 6 if name == "grouped" else 4
    norm = nn.BatchNorm1d(n) if "linear" in name else nn.BatchNorm2d(n)
    model = learned(nn.Sequential(producer, norm), training)
    return model, producer[1] if "linear" in name else producer


class Altered(torch.autograd.Function):
    """Passes values, and alters gradients on their way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, shift: float) -> Tensor:
        ctx.scale, ctx.shift = scale, shift
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.scale + ctx.shift * gradient.abs().amax(), None, None


class AlteredNorm(nn.BatchNorm2d):
    """A batch norm that hands back another gradient than its own."""

    scale, shift = 1.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Altered.apply(x, self.scale, self.shift))
