"""Gradient checkpointing runs parts of a model again, inside the backward pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.models import BY_NAME, C, Checkpointed, W
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bnprobe

BATCHES = BY_NAME["batch norm"].batches()


def recorded(model: nn.Module) -> bnprobe.Recording:
    with bnprobe.attach(model) as probe:
        for x in BATCHES:
            model(x.clone().requires_grad_()).square().sum().backward()
    return probe.recording


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_is_not_counted_twice(use_reentrant: bool):
    """Fails if the second run of a checkpointed part, during backward, joins the totals, or its gradients are lost."""
    recording = recorded(Checkpointed(use_reentrant).double().train())
    assert {r.layer: (r.call, r.n_calls, r.n_images) for r in recording.layers} == dict.fromkeys(
        ("before", "middle.1", "after"), (0, 3, 9)
    )
    assert all(record.gradient.n_passes == 3 for record in recording.layers)
    assert (recording.about.n_forwards, recording.about.n_images) == (3, 9)
    assert not recording.about.notes, "a norm that is rerun was not called past its hooks"


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_of_functional_norms(use_reentrant: bool):
    """Fails if a functional norm in a checkpointed part is counted twice, or differs from the plain run."""

    class Part(nn.Module):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.again, self.weight = again, nn.Parameter(torch.full((W,), 1.5))

        def part(self, x: Tensor) -> Tensor:
            return F.layer_norm(F.group_norm(x, 1), (W,), self.weight)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.part, x, use_reentrant=use_reentrant) if self.again else self.part(x)

    found, expected = recorded(Part(True).double()), recorded(Part(False).double())
    assert [r.layer for r in found.layers] == [r.layer for r in expected.layers]
    for one, other in zip(found.layers, expected.layers, strict=True):
        assert (one.n_calls, one.gradient.n_passes) == (3, 3)
        np.testing.assert_array_equal(one.pre.m2, other.pre.m2)
        np.testing.assert_allclose(one.gradient.dy.m2, other.gradient.dy.m2, rtol=1e-12)


def test_a_checkpointed_norm_used_twice():
    """Fails if the recomputed calls of one norm exchange their gradients."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def part(self, x: Tensor) -> Tensor:
            return self.bn(self.bn(x).square())

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.part, x, use_reentrant=False)

    recording = recorded(Two().double().train())
    assert [(r.call, r.n_calls, r.gradient.n_passes) for r in recording.layers] == [(0, 3, 3), (1, 3, 3)]


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputation_of_the_whole_model_is_not_counted_twice(use_reentrant: bool):
    """Fails if the pass of the model itself, run again during backward, adds its images a second time."""
    model = BY_NAME["in-place ReLU"].model(training=True)
    with bnprobe.attach(model) as probe:
        for x in BY_NAME["batch norm"].batches():
            checkpoint(model, x.requires_grad_(), use_reentrant=use_reentrant).square().sum().backward()
    assert probe.recording.layers[0].n_calls == 3
    assert (probe.recording.about.n_forwards, probe.recording.about.n_images) == (3, 9)
