"""The first layer's weights as one small matrix: what its norm must see on average, by the mean input.

And the same matrix under the usual augmentation of small images, a random crop of the image with some
black pixels around it: there the mean input is not the same at all positions, which is what tells it.
"""

from __future__ import annotations

import numpy as np

from bnprobe.graph.geometry import Geometry
from bnprobe.graph.padding import averaged, meetings
from bnprobe.recording.neighbours import Crop, Stem
from bnprobe.stats.moments import Array

MOST_PADDING = 12
"""Pixels of black on each side that are tried, and never more than a quarter of the image's side."""

MOST_CHANNELS = 4
"""Of the model's input, up to which the covariance of what the zeros around it cause is worked out."""

LARGEST_SIDE = 128
"""Larger images are cropped from within, not padded."""


def stem(weight: Array, bias: Array | None, geometry: Geometry) -> Stem:
    """The matrix (C, F) that takes the mean of the F input channels to the mean before the norm.

    Each weight counts as often as it meets the input rather than the zeros around it. Exact where the
    mean input is the same at all positions; else what differs at the border enters with its weight.
    """
    crops = tuple(_crop(weight, geometry, padding) for padding in _paddings(geometry))
    matrix = _dense(averaged(weight, geometry))
    return Stem(matrix, bias, crops, len(geometry.input_size), _border(weight, geometry, matrix))


@np.errstate(invalid="ignore", over="ignore")  # of weights that need not be finite
def _border(weight: Array, geometry: Geometry, matrix: Array) -> Array | None:
    """Covariance over positions of the outputs that constant input channels have, (C, F, F): 0 without zeros around them.

    Worked out for inputs of a few channels, as images have; None for others.
    """
    if geometry.transposed or geometry.groups > 1 or weight.shape[1] > MOST_CHANNELS:
        return None
    other = weight
    for d, meets in enumerate(meetings(weight, geometry)):
        both = meets @ meets.T / meets.shape[1]
        other = np.moveaxis(np.tensordot(other, both, axes=(d + 2, 0)), -1, d + 2)
    axes = "xyz"[: weight.ndim - 2]
    together = np.einsum(f"cf{axes},cg{axes}->cfg", weight, other)
    covariance: Array = together - matrix[:, :, None] * matrix[:, None, :]
    return covariance


def _paddings(geometry: Geometry) -> range:
    """What a random crop may have been padded with; nothing for inputs that are no small images."""
    sides = geometry.input_size
    if len(sides) != 2 or geometry.transposed or max(sides) > LARGEST_SIDE:
        return range(0)
    return range(1, min(MOST_PADDING, min(sides) // 4) + 1)


def _crop(weight: Array, geometry: Geometry, padding: int) -> Crop:
    fields = [image_share(side, padding) for side in geometry.input_size]
    black = 1 - float(np.prod([field.mean() for field in fields]))
    return Crop(padding, black, _dense(averaged(weight, geometry, fields)))


def image_share(side: int, padding: int) -> Array:
    """How often each row of a random crop holds the image and not the padding around it, shape (side,).

    The crop has the image's side and starts at each of the 2 padding + 1 places equally often.
    """
    row = np.arange(side)[:, None] + np.arange(-padding, padding + 1)[None]
    return np.asarray(((row >= 0) & (row < side)).mean(axis=1), dtype=np.float64)


def _dense(parts: Array) -> Array:
    """(groups, out / g, in / g) as one matrix (out, in), zero between groups."""
    groups, per_out, per_in = parts.shape
    matrix = np.zeros((groups, per_out, groups, per_in))
    matrix[np.arange(groups), :, np.arange(groups)] = parts
    return matrix.reshape(groups * per_out, groups * per_in)
