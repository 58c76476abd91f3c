"""Reading the positions of a padded tensor that count, and none of the others.

Samples with the same positions are read together, as a view wherever these lie side by side, so that what padding costs
is one call of an engine per length; filling it with NaN would cost a copy, and the slow way of every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.reductions.dispatch import add, count, read
from bnprobe.reductions.reading import Counts, Reading
from bnprobe.reductions.request import WHOLE, Affine, ReadRequest, Share
from bnprobe.stats import Moments
from bnprobe.stats.fields import POSITIVE

Index = slice | npt.NDArray[np.int64]
"""Some of the samples, or of the positions: a slice where they lie side by side."""


class Valid:
    """The positions of rows (N, C, P) that count, from `mask`, shape (N, P), and how many do not."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self.mask = mask
        self.n_left_out = int(mask.size - np.count_nonzero(mask))
        together: dict[bytes, list[int]] = {}
        for sample, row in enumerate(mask):
            together.setdefault(row.tobytes(), []).append(sample)
        self.parts = [
            (_index(np.array(samples)), _index(np.flatnonzero(mask[samples[0]])))
            for samples in together.values()
            if mask[samples[0]].any()
        ]


def _index(places: npt.NDArray[np.int64]) -> Index:
    first, n = int(places[0]), len(places)
    return slice(first, first + n) if int(places[-1]) - first == n - 1 else places


def read_valid(x: Tensor, valid: Valid | None, request: ReadRequest) -> Reading:
    """As `read`, of the positions that are valid; of all where `valid` is None.

    The histogram takes its share of the samples that have some.
    """
    if valid is None:
        return read(x, request)
    total: Reading | None = None
    rows = {name: v.copy() for name, v in vars(Moments.empty(x.shape[:2])).items()}  # each may be written to
    for samples, part, share in _cut(x, valid, request.share):
        gate, bins = _of(request.gate, samples), _of(request.bins, samples)
        new = read(part, request._replace(gate=gate, bins=bins, share=share))
        if new.rows is not None:
            for name, known in rows.items():
                known[samples] = getattr(new.rows, name)
        total = _both(total, new)
    if total is None:  # a tensor without samples
        return read(x, request)
    if request.origin is None:
        total = total.about(total.moments.mean)
    counts = total.counts._replace(n_positive=total.packed[POSITIVE] if request.gate else None)
    return replace(total, counts=counts, rows=Moments(**rows) if request.keep_rows else None)


def count_valid(
    x: Tensor, valid: Valid | None, gate: Affine | None, bins: Affine | None, share: Share = WHOLE
) -> Counts:
    """As `count`, of the positions that are valid; of all where `valid` is None."""
    if valid is None or (gate is None and bins is None):
        return count(x, gate, bins, share)
    parts = [
        count(part, _of(gate, samples), _of(bins, samples), part_share)
        for samples, part, part_share in _cut(x, valid, share)
    ]
    return Counts(*(_sum(values) for values in zip(*parts, strict=True)))


def _cut(x: Tensor, valid: Valid, share: Share) -> Iterator[tuple[Index, Tensor, Share]]:
    """The parts of x that count: their samples, the values, and what of them the histogram takes."""
    first = share.first
    for samples, positions in valid.parts:
        part = _taken(_taken(x, 0, samples), 2, positions)
        yield samples, part, Share(share.every, first)
        first += part.shape[0]


def _taken(x: Tensor, dim: int, index: Index) -> Tensor:
    if isinstance(index, slice):
        return x.narrow(dim, index.start, index.stop - index.start)
    return x.index_select(dim, torch.from_numpy(index).to(x.device))


def _of(map_: Affine | None, samples: Index) -> Affine | None:
    return None if map_ is None else map_[samples]


def _both(total: Reading | None, new: Reading) -> Reading:
    """Two readings of other samples, but for their rows and what is positive; the first one's arrays are added to."""
    if total is None:
        return Reading(new.packed, Counts(None, new.counts.histogram), None, new.packed_per_sample)
    add(total.packed, new.packed)
    if total.packed_per_sample is not None and new.packed_per_sample is not None:
        add(total.packed_per_sample, new.packed_per_sample)
    histogram = _sum((total.counts.histogram, new.counts.histogram))
    return replace(total, counts=Counts(None, histogram))


def _sum(values: Any) -> Any:
    """Of arrays, or None where one is missing."""
    return None if any(value is None for value in values) else sum(values[1:], values[0])
