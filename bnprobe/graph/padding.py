"""How often each entry of a kernel meets a value of the input, and how often the zeros around it.

Counted per spatial dimension from the layer's sizes, so it is exact for any kernel, stride, padding,
dilation and size, for transposed convolutions too. Where the mean of the input is the same at all
positions, the mean of the output follows from these shares. K entries of the kernel, O output positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from bnprobe.graph.geometry import Geometry
from bnprobe.stats.moments import Array


def grouped(weight: Array, geometry: Geometry) -> Array:
    """Any weight as (groups, out / groups, in / groups, *kernel); a view where possible."""
    g = geometry.groups
    if geometry.transposed:
        parts = weight.reshape(g, weight.shape[0] // g, *weight.shape[1:])
        return np.swapaxes(parts, 1, 2)
    return weight.reshape(g, weight.shape[0] // g, *weight.shape[1:])


def meetings(weight: Array, geometry: Geometry, fields: Sequence[Array] | None = None) -> list[Array]:
    """Per spatial dimension, 1 where an entry of the kernel meets the input at an output position, (K, O).

    With `fields`, one array over the input's positions per dimension, the value that it meets there.
    """
    fields = fields or [np.ones(n) for n in geometry.input_size]
    return [
        _met(geometry, d, k, field) for d, (k, field) in enumerate(zip(weight.shape[2:], fields, strict=True))
    ]


def _met(geometry: Geometry, d: int, kernel: int, field: Array) -> Array:
    stride, before = geometry.stride[d], geometry.padding[d][0]
    offset = geometry.dilation[d] * np.arange(kernel)[:, None]
    output = np.arange(geometry.output_size[d])[None]
    if geometry.transposed:
        # the input at i is spread to outputs i stride - padding + offset
        position, rest = np.divmod(output + before - offset, stride)
    else:
        position, rest = output * stride - before + offset, np.zeros(1)
    inside = (position >= 0) & (position < field.size) & (rest == 0)
    return np.where(inside, field[np.where(inside, position, 0)], 0.0)


def averaged(weight: Array, geometry: Geometry, fields: Sequence[Array] | None = None) -> Array:
    """The weights summed over the kernel, each as often as it meets the input: (groups, out / g, in / g).

    Times the mean of every input channel this is the mean of every output channel over positions. Where
    that mean varies over positions as a product of `fields`, one per dimension, give these.
    """
    parts = grouped(weight, geometry)
    shares = [meets.mean(axis=1) for meets in meetings(weight, geometry, fields)]
    each = reduce(np.multiply.outer, shares, np.ones(())).ravel()
    flat = parts.reshape(-1, each.size)
    # of a kernel of one entry that meets the input everywhere, there is nothing to sum: its weights are not touched
    summed: Array = flat[:, 0] if each.size == 1 and each[0] == 1 else flat @ each
    return summed.reshape(parts.shape[:3])


def mean_square(response: Array, weight: Array, geometry: Geometry) -> Array:
    """Mean over positions of the squared output where entry k of the kernel adds response[:, k], (out,).

    `response` is (out, *kernel). A square needs two entries at once, so it takes the share of positions
    at which both meet the input.
    """
    other = response
    for d, meets in enumerate(meetings(weight, geometry)):
        both = meets @ meets.T / meets.shape[1]
        other = np.moveaxis(np.tensordot(other, both, axes=(d + 1, 0)), -1, d + 1)
    squares: Array = (response * other).sum(axis=tuple(range(1, response.ndim)))
    return squares
