"""Fine detail in the model's input against what the first norm remembers: do the images have the size of training?

Filters of the first layer whose weights add up to nothing see edges only, those that add up see areas. Enlarging,
blurring or compressing images takes from the edges and leaves the areas; shrinking and noise add to the edges.
The first norm remembers the variance of both.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

THIRD = 1 / 3
"""Of the channels, at least two: the finest and the coarsest are compared, those between see both."""

COLUMNS = (
    Column(
        "detail_ratio",
        "Fine detail in the model's input, of what the first norm remembers, against the same for coarse areas.",
        "median √(pre_var / σ²) of the third of filters whose weights cancel most, by that of those that cancel least",
        source="Simoncelli & Olshausen 2001, Annual Review of Neuroscience 24 (spectra of natural images)",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """1 where images are as fine as in training; NaN but for a first norm with a memory."""
    stem, folded = (record.wiring.stem, record.wiring.folded) if record.wiring else (None, None)
    if stem is None or folded is None or record.running_var is None:
        return {"detail_ratio": float("nan")}
    with np.errstate(all="ignore"):
        coarse = np.linalg.norm(stem.matrix, axis=1) / folded.norm
        ratio = np.sqrt(record.pre.var_population / record.running_var)
    good = np.isfinite(coarse) & np.isfinite(ratio) & (ratio > 0) & (record.running_var > record.eps)
    return {"detail_ratio": _fine_to_coarse(coarse[good], ratio[good])}


def _fine_to_coarse(coarse: Array, ratio: Array) -> float:
    n = max(2, int(len(coarse) * THIRD))
    if len(coarse) < 2 * n:
        return float("nan")
    order = np.argsort(coarse, kind="stable")
    return float(np.median(ratio[order[:n]]) / np.median(ratio[order[-n:]]))
