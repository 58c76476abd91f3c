"""Copies of the vectors of a layer at one call: gamma, beta and the running statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.tensors import held_here
from bnprobe.reductions import float64_copy
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Vectors:
    """The learned and stored vectors of a layer at one call, float64 of shape (C,), or None."""

    gamma: Array | None
    beta: Array | None
    running_mean: Array | None
    running_var: Array | None


def vectors_of(plan: NormLayer) -> Vectors:
    """Copies of the layer's vectors; gamma with the plan's offset (1 + w in some RMS norms)."""
    return Vectors(
        vector_of(plan.weight, plan.weight_offset),
        vector_of(plan.bias),
        vector_of(plan.running_mean),
        vector_of(plan.running_var),
    )


def vector_of(tensor: Tensor | None, added: float = 0.0) -> Array | None:
    """A copy of the tensor in float64, shape (C,), with `added` to every entry."""
    if tensor is None:
        return None
    placements = getattr(tensor, "placements", ())
    whole = tensor if all(placement.is_replicate() for placement in placements) else tensor.full_tensor()  # type: ignore[attr-defined]
    vector: Array = float64_copy(held_here(whole))
    return vector + added if added else vector


def gamma_beta(plan: NormLayer, vectors: Vectors) -> tuple[Array, Array]:
    """The learned vectors, with 1 and 0 in place of what the layer does not have."""
    gamma = np.ones(plan.n_channels) if vectors.gamma is None else vectors.gamma
    return gamma, np.zeros(plan.n_channels) if vectors.beta is None else vectors.beta
