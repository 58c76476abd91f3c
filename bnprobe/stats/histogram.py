"""Histograms on a fixed scale, so that counts from anywhere simply add.

Requirements this meets: no pass over the data to find a range; nothing falls outside, however
far the data have moved; fine where the data are expected and coarse where they are not; the bin
of a value comes from integer operations on the bits of a float, so that a kernel can afford it.

The bin is found from z = (x - center) / scale: u = 1 + |z| is cut into eight equal bins per power
of two, on each side. Bins are 1/8 wide up to |z| = 1, 1/4 up to 3, 1/2 up to 7, and so on to 63;
beyond that everything is counted in the last one. This is a symmetric logarithmic axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array

BINS_PER_OCTAVE = 8
N_OCTAVES = 6
SIDE = BINS_PER_OCTAVE * N_OCTAVES
N_BINS = 2 * SIDE
_OCTAVES = 2.0 ** np.arange(N_OCTAVES)
_STEPS = 1 + np.arange(BINS_PER_OCTAVE) / BINS_PER_OCTAVE
_SIDE_EDGES = np.append((_OCTAVES[:, None] * _STEPS).ravel(), 2.0**N_OCTAVES) - 1

Z_EDGES: Array = np.concatenate([-_SIDE_EDGES[:0:-1], _SIDE_EDGES])
"""Edges of the bins in units of z, shape (N_BINS + 1,), from -63 to 63; the outer bins are open."""


def bin_index(z: Array) -> NDArray[np.int64]:
    """Bin of each z, 0 to N_BINS - 1: the slow reference of what the kernels do with bits.

    z = 0 belongs to the positive side, and so does -0.
    """
    side = np.searchsorted(_SIDE_EDGES, np.abs(z), side="right") - 1
    side = np.minimum(side, SIDE - 1)
    return np.where(z < 0, SIDE - 1 - side, SIDE + side)


@dataclass(frozen=True)
class Histogram:
    """Counts per channel on one or more reference scales ("sheets").

    `centre` and `scale` have shape (S, C), `counts` (S, C, N_BINS), all float64, scale > 0.
    A norm with running statistics has one sheet, set by them. Others take the first batch as
    reference; merging recordings that met different first batches keeps both sheets, because
    moving counts from one scale to another would be a guess.
    """

    centre: Array
    scale: Array
    counts: Array = field(metadata={"counts": "whole numbers, which files hold in fewer bytes"})

    def __repr__(self) -> str:
        sheets, channels = self.centre.shape
        scales = f"{sheets} scale{'s' * (sheets != 1)}"
        return f"Histogram({channels:,} channels, {self.counts.sum():,.0f} values counted on {scales})"

    def __post_init__(self) -> None:
        if self.centre.shape != self.scale.shape or self.counts.shape != (*self.centre.shape, N_BINS):
            raise BnprobeError(
                f"A histogram needs center and scale of one shape (S, C) and counts (S, C, {N_BINS}), "
                f"got {self.centre.shape}, {self.scale.shape}, {self.counts.shape}."
            )

    @classmethod
    def empty(cls, centre: Array, scale: Array) -> Self:
        """No counts yet, on the scale given by `centre` and `scale`, each of shape (C,)."""
        return cls(centre[None], scale[None], np.zeros((1, *centre.shape, N_BINS)))

    @property
    def n(self) -> Array:
        """Values counted per channel, shape (C,)."""
        n: Array = self.counts.sum(axis=(0, 2))
        return n

    def merge(self, other: Self) -> Self:
        """Counts of both; sheets on the same scale are added, others are kept beside."""
        merged = self
        for s in range(len(other.centre)):
            merged = merged._with_sheet(other.centre[s], other.scale[s], other.counts[s])
        return merged

    def _with_sheet(self, centre: Array, scale: Array, counts: Array) -> Self:
        for s in range(len(self.centre)):
            if np.array_equal(self.centre[s], centre) and np.array_equal(self.scale[s], scale):
                added = (self.counts[s] + counts)[None]  # of a single sheet, as of most, nothing is copied
                total = (
                    np.concatenate([self.counts[:s], added, self.counts[s + 1 :]])
                    if len(self.centre) > 1
                    else added
                )
                return type(self)(self.centre, self.scale, total)
        join = [
            np.concatenate([a, b[None]])
            for a, b in ((self.centre, centre), (self.scale, scale), (self.counts, counts))
        ]
        return type(self)(*join)

    def affine(self, scale: Array, offset: Array, origin: Array) -> Self:
        """Histogram of scale * (x - origin) + offset, each of shape (C,).

        A negative scale turns the bins around. Where the map is constant (scale 0), every value
        lies at the offset, that is in the first bin at or above z = 0 of a unit scale.
        """
        flat = scale == 0
        turned = np.where((scale < 0)[:, None], self.counts[:, :, ::-1], self.counts)
        at_zero = np.zeros_like(self.counts)
        at_zero[:, :, SIDE] = self.counts.sum(axis=2)
        return type(self)(
            np.where(flat, offset, scale * (self.centre - origin) + offset),
            np.where(flat, 1.0, np.abs(scale) * self.scale),
            np.where(flat[:, None], at_zero, turned),
        )

    def density(self, channel: int, x: Array) -> Array:
        """Share of values per unit of x, at each point of `x`, for one channel."""
        total = self.n[channel]
        result = np.zeros_like(x, dtype=np.float64)
        if total == 0:
            return result
        for centre, scale, counts in zip(
            self.centre[:, channel], self.scale[:, channel], self.counts[:, channel], strict=True
        ):
            z = (x - centre) / scale
            inside = np.abs(z) < Z_EDGES[-1]
            height = counts / (np.diff(Z_EDGES) * scale * total)
            result += np.where(inside, height[bin_index(z)], 0.0)
        return result
