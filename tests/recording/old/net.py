"""A small network and its run, free of random numbers: what `schema_1.bnp` beside this file was recorded from.

The file was written by bnprobe 0.1.0, whose recordings had schema 1, with `write(path)` below.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import bnprobe


def wave(*shape: int, step: float = 0.7, shift: float = 0.0) -> Tensor:
    """Values of a sine: irregular enough for a test, and the same on every machine and torch."""
    n = torch.Size(shape).numel()
    return torch.sin(torch.arange(n, dtype=torch.float64) * step + shift).float().reshape(shape)


class Net(nn.Module):
    """Batch, layer and group norm, a residual sum, a norm that is called twice, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.twice = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(4)
        self.unused = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(wave(*parameter.shape, shift=float(i)) + (0.5 if parameter.dim() == 1 else 0))
            for norm in (self.bn, self.twice):
                norm.running_mean.copy_(wave(4, shift=9.0))
                norm.running_var.copy_(wave(4, shift=4.0).abs() + 0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = self.twice(self.second(x)) + x
        x = self.group(torch.relu(self.twice(x)))
        return self.head(self.layer(x.mean((2, 3))))


def record() -> bnprobe.Recording:
    """Two labelled batches with a backward pass each, in eval mode; a snapshot taken after `detach`."""
    model = Net().eval()
    with bnprobe.attach(model) as probe:
        for i, labels in enumerate(([0, 1, 0, 1], [1, 1, 0])):
            with probe.labels(torch.tensor(labels)):
                output = model(wave(len(labels), 3, 5, 5, step=0.37, shift=float(i)))
                nn.functional.cross_entropy(output, torch.tensor(labels)).backward()
            model.zero_grad()
    return probe.recording


def write(path: Path) -> None:
    """Record and save."""
    record().save(path)
