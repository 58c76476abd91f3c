"""Small checkpoints, and how those that are refused say so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from bnprobe import models
from bnprobe.errors import BadCheckpoint
from bnprobe.weights import State
from bnprobe.weights.with_torch.ram import InRam

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "bn.running_mean": torch.ones(5)}


def as_read(state: Mapping[str, torch.Tensor]) -> State:
    """Tensors of torch's as those that look for norms see them."""
    return {name: InRam(tensor) for name, tensor in state.items()}


def refused(path: Path, match: str) -> str:
    """What `models.load_checkpoint` says when refused; always one line, with the file's name."""
    with pytest.raises(BadCheckpoint, match=match) as error:
        models.load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    return str(error.value)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)
