"""Headroom of a norm's inputs in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.recording.terms import HALF_MAX, REACH_SIGMAS

COLUMNS = (
    Column(
        "largest_input",
        "Largest absolute input: measured, or without data 6 running standard deviations beyond the running mean.",
        "max |x|, or max |μ| + 6σ",
        "input",
        table="layers",
    ),
    Column(
        "half_headroom",
        "Headroom in half precision: its largest number relative to the largest input.",
        "65504 / largest_input",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, Any]:
    """The largest input against the range of half precision; NaN where nothing is known."""
    largest = largest_input(record)
    return {"largest_input": largest, "half_headroom": HALF_MAX / largest if largest > 0 else float("nan")}


def largest_input(record: LayerRecord) -> float:
    """The largest absolute input measured, or without data the largest expected from the running statistics; else NaN."""
    seen = record.pre.n > 0
    if seen.any():
        return float(np.max(np.fmax(np.abs(record.pre.low[seen]), np.abs(record.pre.high[seen]))))
    if record.running_mean is None or record.running_var is None:
        return float("nan")
    with np.errstate(invalid="ignore", over="ignore"):
        reach = np.abs(record.running_mean) + REACH_SIGMAS * np.sqrt(record.running_var)
    known = reach[~np.isnan(reach)]
    return float(known.max()) if known.size else float("nan")
