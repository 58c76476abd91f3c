"""Copies of the vectors of a layer."""

from __future__ import annotations

import numpy as np
import torch

from bnprobe.norms import NormLayer
from bnprobe.probe.calls import vectors_of


def test_vectors_are_copies_with_the_plans_offset():
    """Fails if a record shares memory with the model, or 1 + w is recorded as w."""
    weight = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    own = NormLayer("k", "batch", 4, 0.0, weight=weight, weight_offset=1.0)
    vectors = vectors_of(own)
    weight += 5
    assert vectors.gamma.tolist() == [1, 2, 3, 4]
    assert vectors.gamma.dtype == np.float64
    assert vectors.beta is None
