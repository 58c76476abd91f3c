"""Identities that gradients at a norm must hold, as gaps: 0 where they do, so that a wrong backward pass shows."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

COLUMNS = (
    Column(
        "gap_centre",
        "Check: in train mode the gradient at the input sums to zero; 0 where it does.",
        "largest |Σ dx| / √(n Σ (dy γ / √(var + eps))²)",
        table="layers",
    ),
    Column(
        "gap_map",
        "Check: in eval mode the gradient is only scaled; 0 where it is.",
        "largest |dx − dy γ/√(running_var + eps)|, of its mean and root mean square, relative",
        table="layers",
    ),
    Column(
        "gap_weight",
        "Check: the gradients of γ and of the preceding weights are tied to each other; 0 where the identity holds.",
        "largest |⟨w, dL/dw⟩ − expected| / (|w| |dL/dw|), expected γ dγ eps/(var + eps) in train mode",
        source="van Laarhoven 2017, arXiv:1706.05350",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """The largest gap over channels; NaN where an identity could not be checked."""
    gradient = record.gradient
    if gradient is None or not gradient.n_passes:
        return {column.name: float("nan") for column in COLUMNS}
    return {
        "gap_centre": _largest(gradient.gap_centre),
        "gap_map": _largest(gradient.gap_map),
        "gap_weight": float("nan") if gradient.producer is None else _largest(gradient.producer.gap),
    }


def _largest(gaps: Array) -> float:
    """Largest value that is there; NaN where there is none."""
    there = gaps[~np.isnan(gaps)]
    return float(there.max()) if there.size else float("nan")
