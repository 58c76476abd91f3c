"""Where a function was called: found without keeping what frames hold."""

from __future__ import annotations

import weakref

import torch
from norms.test_functional import AnySize
from torch.nn import functional as F

import bnprobe


def test_what_a_caller_holds_is_not_kept():
    """Fails if looking for the enclosing module keeps the variables of frames around it alive."""

    def train(steps: int) -> list[bool]:
        alive = []
        for _ in range(steps):
            batch = torch.randn(4, 8)
            seen = weakref.ref(batch)
            F.layer_norm(batch, (8,))
            del batch
            alive.append(seen() is not None)
        return alive

    with bnprobe.attach(AnySize()):
        assert train(3) == [False] * 3
