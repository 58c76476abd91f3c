"""Norms as a checkpoint shows them: vectors and neighbours, without a call."""

from __future__ import annotations

from typing import Any

import numpy as np
from measures.sites import running_stats_of, site, some_rows

from bnprobe.checkpoints.records import without_calls
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Folded, Neighbours

ROWS = some_rows(n_channels=8)
STATISTICS = running_stats_of(ROWS)
ONE = np.ones(8)
FED = Neighbours("relu", "conv", folded=Folded(ONE, -ONE, ONE, None))


def stored(layer: str = "bn", rows: np.ndarray = ROWS, **changes: Any) -> LayerRecord:
    """A norm as a checkpoint shows it: vectors and neighbours, no call."""
    fields = {"gamma": 1.5, "beta": 0.1, **running_stats_of(rows), **changes}
    return without_calls(site(rows, layer, **fields))


def at(value: float, others: float, *places: int) -> np.ndarray:
    vector = np.full(8, float(others))
    vector[list(places)] = value
    return vector


def wired(norm: np.ndarray) -> Neighbours:
    return Neighbours("relu", "conv1", folded=Folded(norm, -ONE, ONE, None), guessed=True)
