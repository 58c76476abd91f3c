"""What the layers that take a norm's output read of each channel: the lengths of the columns of their weights."""

from __future__ import annotations

import torch
from torch import Tensor

from bnprobe.graph.graph import Node
from bnprobe.graph.operations import PASS, WEIGHTS
from bnprobe.stats.moments import Array

MOST_STEPS = 64
"""Views walked on the way to weights."""


def column_lengths(site: Node, n_channels: int) -> Array | None:
    """Per channel the length of its weights in all linear layers that take the output, shape (C,).

    None where something else takes it as well, whose share is not known, or where nothing linear does.
    """
    waiting, total = [site], None
    for _ in range(MOST_STEPS):
        if not waiting:
            break
        for taker in waiting.pop().consumers:
            if taker.part == PASS:
                waiting.append(taker)
            elif taker.part == WEIGHTS and taker.name == "linear":
                squares = _squares(taker.facts["weight"], taker.facts["turned"], n_channels)
                if squares is None:
                    return None
                total = squares if total is None else total + squares
    if total is None:
        return None
    lengths: Array = torch.sqrt(total).cpu().numpy()
    return lengths


def _squares(weight: Tensor, turned: bool, n_channels: int) -> Tensor | None:
    """The squared lengths of the columns of a weight (out, in), or (in, out) where it is turned."""
    dim = 1 if turned else 0
    if not weight.is_floating_point() or weight.shape[1 - dim] != n_channels:
        return None
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    lengths: Tensor = torch.linalg.vector_norm(weight.detach(), dim=dim, dtype=dtype)
    return lengths.double() ** 2
