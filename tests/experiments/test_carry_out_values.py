"""Values in another type: tensors of floating-point numbers, and nothing else."""

from __future__ import annotations

import torch

from bnprobe.experiments.carry_out import _as


def test_only_floating_point_tensors_change_their_type() -> None:
    """Fails if classes become numbers, or what is no tensor is asked for its type."""
    assert _as(torch.ones(2, dtype=torch.float16), torch.float32).dtype == torch.float32
    classes, words = torch.tensor([1, 2]), "words"
    assert _as(classes, torch.float32) is classes
    assert _as(words, torch.float32) is words
    assert _as(None, torch.float32) is None
