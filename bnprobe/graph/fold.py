"""The weights before a norm with the norm folded into them, as an inference engine would."""

from __future__ import annotations

import numpy as np

from bnprobe.recording.neighbours import Folded
from bnprobe.stats.moments import Array


def folded(
    weight_rows: Array,
    bias: Array | None,
    gamma: Array | None,
    running_mean: Array | None,
    running_var: Array | None,
    eps: float,
) -> Folded:
    """Length of every channel's weights, and extremes of w gamma / sqrt(running_var + eps); shapes (C,).

    `weight_rows` is (C, fan_in): a row per output channel. Extremes are NaN where the norm stores no
    statistics: what follows the batch cannot be folded. Jacob et al. 2018, arXiv:1712.05877, section 3.2.
    """
    norm = np.sqrt((weight_rows**2).sum(axis=1))
    if running_mean is None or running_var is None:
        missing = np.full(norm.shape, np.nan)
        return Folded(norm, missing, missing, bias)
    with np.errstate(
        invalid="ignore", divide="ignore"
    ):  # no root, or no width: other findings report the vector itself
        slope = (1.0 if gamma is None else gamma) / np.sqrt(running_var + eps)
    rows = weight_rows * slope[:, None]
    return Folded(norm, rows.min(axis=1), rows.max(axis=1), bias)
