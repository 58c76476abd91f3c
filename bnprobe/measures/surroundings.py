"""What stands around the norm: the weights before it, alone and folded, what follows, and its room in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

HALF = 65504.0
"""Largest number of half precision."""

SIGMAS = 6.0

_JACOB = "Jacob et al. 2018, arXiv:1712.05877"

COLUMNS = (
    Column(
        "filter_norm",
        "Length of the weights that make this channel: a filter without gradient shrinks by weight decay alone.",
        "|w|",
        source="van Laarhoven 2017, arXiv:1706.05350",
    ),
    Column(
        "folded_low",
        "Smallest of this channel's weights once the norm is folded into them.",
        "min w γ / √(σ² + eps)",
        source=_JACOB,
    ),
    Column(
        "folded_high",
        "Largest of this channel's weights once the norm is folded into them.",
        "max w γ / √(σ² + eps)",
        source=_JACOB,
    ),
    Column(
        "follows",
        "What becomes of the output: relu, add, linear, ...; unknown where nothing ran.",
        table="layers",
    ),
    Column(
        "feeder",
        "The layer whose weights make the input; by name where it was told from names and shapes.",
        table="layers",
    ),
    Column(
        "folded_spread",
        "Typical range of a channel's folded weights against the widest: small where one scale per tensor wastes bits.",
        "median max|w'| / largest max|w'|",
        "0 to 1",
        "Nagel et al. 2019, arXiv:1906.04721",
        "layers",
    ),
    Column(
        "largest_input",
        "Largest absolute input: the measured one, or 6 remembered deviations beyond the remembered mean.",
        "max |x|, or max |μ| + 6σ",
        "input",
        table="layers",
    ),
    Column(
        "half_headroom",
        "How often the largest input fits into the largest number of half precision.",
        "65504 / largest_input",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Lengths and folded extremes of the weights before the norm; NaN where they are not known."""
    missing = np.full(record.n_channels, np.nan)
    folded = record.wiring.folded if record.wiring else None
    if folded is None:
        return dict.fromkeys(("filter_norm", "folded_low", "folded_high"), missing)
    return {"filter_norm": folded.norm, "folded_low": folded.low, "folded_high": folded.high}


def layer_columns(record: LayerRecord) -> dict[str, Any]:
    """The neighbours in words, and two ratios; NaN where nothing is known."""
    wiring, columns = record.wiring, channel_columns(record)
    reach = np.fmax(np.abs(columns["folded_low"]), np.abs(columns["folded_high"]))
    widest = float(np.nanmax(reach, initial=0.0))
    largest = largest_input(record)
    return {
        "follows": wiring.follows if wiring else "unknown",
        "feeder": f"{wiring.feeder}{' (by name)' if wiring.guessed else ''}" if wiring else "",
        "folded_spread": median(reach) / widest if 0 < widest < np.inf else float("nan"),
        "largest_input": largest,
        "half_headroom": HALF / largest if largest > 0 else float("nan"),
    }


def largest_input(record: LayerRecord) -> float:
    """The largest absolute input seen, or without data the largest that the memory lets expect; NaN without either."""
    seen = record.pre.n > 0
    if seen.any():
        return float(np.max(np.fmax(np.abs(record.pre.low[seen]), np.abs(record.pre.high[seen]))))
    if record.running_mean is None or record.running_var is None:
        return float("nan")
    with np.errstate(invalid="ignore", over="ignore"):
        reach = np.abs(record.running_mean) + SIGMAS * np.sqrt(record.running_var)
    known = reach[~np.isnan(reach)]
    return float(known.max()) if known.size else float("nan")
