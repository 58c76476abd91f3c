"""Channels of the model's input that hold one value: empty bands, and those that were filled or zeroed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.graph.graph import Node
from bnprobe.recording.neighbours import Stem
from bnprobe.stats.moments import Array

FEWEST_SIDES = 1
"""Of an input (N, channels, sides ...). Features of a table hold one value by right, as a category that is absent."""


def extremes(x: Tensor) -> dict[str, Any]:
    """Smallest and largest value of each channel of an input (N, C, sides ...), on its device; empty for other inputs."""
    if not x.is_floating_point() or x.dim() < 2 + FEWEST_SIDES or not x.numel():
        return {}
    dims = [d for d in range(x.dim()) if d != 1]
    # of types that torch cannot compare nothing is known
    with suppress(RuntimeError, NotImplementedError), torch.no_grad():
        return {"extremes": (x.detach().amin(dims), x.detach().amax(dims))}
    return {}


def constant_channels(stem: Stem, inputs: Iterable[Node]) -> Array | None:
    """The value of each channel of the input that holds no other, NaN for the others; None where the input is not known."""
    of_shape = [node for node in inputs if len(node.shape) == stem.n_sides + 2 and "extremes" in node.facts]
    if stem.n_sides < FEWEST_SIDES or len(of_shape) != 1:
        return None
    low, high = (one.double().cpu().numpy() for one in of_shape[0].facts["extremes"])
    return np.where(low == high, low, np.nan) if low.size == stem.matrix.shape[1] else None
