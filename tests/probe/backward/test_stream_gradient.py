"""The gradient of the stream that a norm is given, times each token's scale, against torch's own gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rules.of_tokens import C, Stream
from torch import Tensor, nn

import bnprobe
from bnprobe.measures.gradient import layer_columns


class PostNorm(nn.Module):
    """Norms of sums: nothing but the norm takes what it is given. The first one is given a parameter, which has no maker."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(6, 12, C))
        self.first, self.second, self.mlp = nn.LayerNorm(C), nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.start) * x
        z: Tensor = self.second(y + self.mlp(y))
        return z


def by_hand(model: nn.Module, batches: list[Tensor], keep: Tensor, times: float = 1.0) -> dict[str, float]:
    """√(Σ (r · dL/dx)² / passes) of each norm, from the gradients that torch keeps for the inputs."""
    given: dict[str, list[Tensor]] = {}

    def keeps(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            if args[0].requires_grad and not args[0].is_leaf:
                args[0].retain_grad()
                given.setdefault(name, []).append(args[0])

        return hook

    handles = [
        module.register_forward_pre_hook(keeps(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm)
    ]
    for x in batches:
        (model(x).square().mean() * times).backward()
    for handle in handles:
        handle.remove()
    found = {}
    for name, tensors in given.items():
        total, norm = 0.0, model.get_submodule(name)
        for x in tensors:
            values, gradient = x.detach().double(), x.grad.double()
            if isinstance(norm, nn.LayerNorm):
                values = values - values.mean(-1, keepdim=True)
            eps = norm.eps or torch.finfo(torch.float32).eps
            r2 = values.square().mean(-1, keepdim=True) + eps
            total += float((r2 * gradient.square() * keep[..., None]).sum())
        found[name] = (total / len(tensors)) ** 0.5
    return found


@pytest.mark.parametrize("kind", [Stream, PostNorm])
@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_of_the_stream_times_scale(kind: Any, masked: bool):
    """Fails if only the norm's own part of the gradient is read, scales are those of other tokens, or padding counts."""
    torch.manual_seed(0)
    model = kind().train()
    batches = [torch.randn(6, 12, C) * size for size in (1.0, 5.0)]
    keep = torch.ones(6, 12)
    if masked:
        keep[2, 5:] = 0
    with bnprobe.attach(model) as probe:
        for x in batches:
            if masked:
                with probe.mask(keep):
                    y = model(x)
            else:
                y = model(x)
            y.square().mean().backward()
    found = {one.layer: layer_columns(one)["grad_scale"] for one in probe.recording.layers}
    expected = by_hand(model, batches, keep)
    if kind is PostNorm:  # a leaf has no node that all of its gradient arrives at
        assert np.isnan(found.pop("first"))
    else:
        assert np.isnan(found.pop("blocks.0.first"))  # the input of the model has no gradient
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_a_loss_scale_is_taken_out():
    """Fails if the gradient of the stream is that of the scaled loss."""
    torch.manual_seed(0)
    model, x = Stream().train(), torch.randn(6, 12, C)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with bnprobe.attach(model, scaler=scaler) as probe:
        scaler.scale(model(x).square().mean()).backward()
    found = {one.layer: layer_columns(one)["grad_scale"] for one in probe.recording.layers}
    expected = by_hand(model, [x], torch.ones(6, 12))
    assert found["final"] == pytest.approx(expected["final"], rel=1e-5)


def test_norms_that_pool_over_positions_have_none():
    """Fails if a norm without a scale per token has a gradient times scale."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.Conv1d(4, 4, 3), nn.GroupNorm(2, 4)
    ).train()
    with bnprobe.attach(model) as probe:
        model(torch.randn(5, 3, 11)).square().mean().backward()
    assert all(np.isnan(layer_columns(one)["grad_scale"]) for one in probe.recording.layers)
