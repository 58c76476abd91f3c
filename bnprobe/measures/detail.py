"""Fine detail in the model's input against the first norm's running variance: do the images have the size of training?

Filters of the first layer whose weights add up to nothing see edges only, those that add up see areas. Enlarging,
blurring or compressing images takes from the edges and leaves the areas; shrinking and noise add to the edges.
The first norm stores the running variance of both.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

THIRD = 1 / 3
"""Of the channels, at least two: the finest and the coarsest are compared, those between see both."""

AREAS_ALIKE = 1.25
"""Factor from their running std within which areas lie, typically, where only detail differs: enlarging, blurring and
noise of 0.7 standard deviations stay within 1.23 on planted models."""

AREAS_TOGETHER = 2.0
"""Factor that the coarse filters may lie apart from each other, in running std; the same stay within 1.7, and images
without a color or with a wrong one reach 2.3 and more."""

COLUMNS = (
    Column(
        "detail_ratio",
        "Fine detail in the model's input relative to training: 1 if the same; undefined where areas changed as well.",
        "median √(pre_var / σ²) of the third of filters whose weights cancel most, by that of those that cancel least; "
        f"NaN where the latter is not within a factor of {AREAS_ALIKE:g} of 1, or these filters lie a factor of "
        f"{AREAS_TOGETHER:g} apart",
        source="Simoncelli & Olshausen 2001, Annual Review of Neuroscience 24 (spectra of natural images)",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """1 where images are as fine as in training; NaN but for a first norm where the variance of areas still holds."""
    stem, folded = (record.neighbours.stem, record.neighbours.folded) if record.neighbours else (None, None)
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
    areas = ratio[order[-n:]]
    typical = float(np.median(areas))
    if not 1 / AREAS_ALIKE <= typical <= AREAS_ALIKE or areas.max() > AREAS_TOGETHER * areas.min():
        return float("nan")
    return float(np.median(ratio[order[:n]]) / typical)
