"""The first layer's weights as one small matrix: what its norm must see on average, by the mean input."""

from __future__ import annotations

import numpy as np

from bnprobe.neighbours import Stem
from bnprobe.stats.moments import Array
from bnprobe.wiring.borders import averaged
from bnprobe.wiring.geometry import Geometry


def stem(weight: Array, bias: Array | None, geometry: Geometry) -> Stem:
    """The matrix (C, F) that takes the mean of the F input channels to the mean before the norm.

    Each weight counts as often as it meets the input rather than the zeros around it. Exact where the
    mean input is the same at all positions; else what differs at the border enters with its weight.
    """
    parts = averaged(weight, geometry)
    groups, per_out, per_in = parts.shape
    matrix = np.zeros((groups, per_out, groups, per_in))
    matrix[np.arange(groups), :, np.arange(groups)] = parts
    return Stem(matrix.reshape(groups * per_out, groups * per_in), bias)
