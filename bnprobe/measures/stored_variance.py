"""The measured variance of what a running variance averages."""

from __future__ import annotations

import numpy as np

from bnprobe.recording import BATCH, LayerRecord
from bnprobe.stats.moments import Array


def var_as_stored(record: LayerRecord) -> Array:
    """What a running variance should be equal to; shape (C,).

    A batch norm stores the variance of all values. An instance norm stores the mean variance within a sample, which
    lacks that between the samples.
    """
    if record.pools == BATCH:
        return record.pre.var_population
    n = record.pre_images.n
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.where(n > 1, record.pre_images.var_between * (n - 1) / n, 0.0)
        return np.asarray(np.maximum(record.pre.var_population - between, 0.0), dtype=np.float64)
