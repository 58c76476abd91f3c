"""A small network and its parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.recording import Recording


def network(seed: int = 3) -> nn.Module:
    """Running statistics, statistics of a sample and of channels, and sizes that are told apart."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 6, 1), nn.GroupNorm(2, 6)
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model.eval()


def batch(seed: int, n: int = 4) -> Tensor:
    """Samples that no other seed gives."""
    return torch.randn(n, 3, 7, 5, generator=torch.Generator().manual_seed(seed))


Recorded = Callable[..., Recording]


@pytest.fixture
def part() -> Recorded:
    """The recording of a batch of its own."""

    def recorded(seed: int, n: int = 4, **options) -> Recording:
        return bnprobe.record(network(), [batch(seed, n)], **options)

    return recorded
