"""Reading the positions of a padded tensor that count, and none of the others.

Samples with the same positions are read together, as a view wherever these lie side by side, so that what padding costs
is one call of an engine per length; filling it with NaN would cost a copy, and the slow way of every engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.reductions.dispatch import add, count, read
from bnprobe.reductions.reading import Counts, Reading, Tokens
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

    @property
    def n_samples(self) -> int:
        """Samples of the batch, those without a position that counts included."""
        return len(self.mask)

    def cut(self, x: Tensor, share: Share) -> Iterator[tuple[Index, Tensor, Share]]:
        """The parts of x that count: their samples, the values, and what of them the histogram takes."""
        first = share.first
        for samples, positions in self.parts:
            part = _taken(_taken(x, 0, samples), 2, positions)
            yield samples, part, Share(share.every, first)
            first += part.shape[0]


class Packed(Valid):
    """Sequences whose tokens lie one behind another: as the samples of rows (tokens, C, P), or as positions of one sample,
    rows (1, C, tokens P), P of them for each token.

    Sequence i has the tokens from `offsets[i]` up to `offsets[i + 1]`. All tokens count.
    """

    def __init__(self, offsets: npt.NDArray[np.int64], as_samples: bool, per_token: int) -> None:
        n, self._offsets, self._as_samples, self._per_token = int(offsets[-1]), offsets, as_samples, per_token
        shape = (n, per_token) if as_samples else (1, n * per_token)
        super().__init__(np.ones(shape, dtype=np.bool_))
        spans = [slice(int(a), int(b)) for a, b in pairwise(offsets) if b > a]
        self.parts = [
            (span, slice(0, per_token))
            if as_samples
            else (slice(0, 1), slice(span.start * per_token, span.stop * per_token))
            for span in spans
        ]

    @property
    def n_samples(self) -> int:
        """Sequences, those without a token included."""
        return len(self._offsets) - 1

    def cut(self, x: Tensor, share: Share) -> Iterator[tuple[Index, Tensor, Share]]:
        """Each sequence, (1, C, its positions); a view of the common layouts."""
        sequences = np.flatnonzero(np.diff(self._offsets)).tolist()
        for first, (i, (rows, positions)) in enumerate(zip(sequences, self.parts, strict=True), share.first):
            part = _taken(_taken(x, 0, rows), 2, positions)
            if self._as_samples:
                part = part.permute(1, 0, 2).reshape(1, x.shape[1], -1)
            yield slice(i, i + 1), part, Share(share.every, first)


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
    empty = Moments.empty((valid.n_samples, x.shape[1]))
    rows = {name: v.copy() for name, v in vars(empty).items()}  # each may be written to
    tokens: Tokens | None = None
    for i, (samples, part, share) in enumerate(valid.cut(x, request.share)):
        gate, bins = _of(request.gate, samples), _of(request.bins, samples)
        new = read(part, request._replace(gate=gate, bins=bins, share=share))
        if new.rows is not None:
            for name, known in rows.items():
                known[samples] = getattr(new.rows, name)
        if new.tokens is not None:
            tokens = _with_part(tokens, new.tokens, x, *valid.parts[i])
        total = _both(total, new)
    if total is None:  # a tensor without samples
        return read(x, request)
    if request.origin is None:
        total = total.about(total.moments.mean)
    counts = total.counts._replace(n_positive=total.packed[POSITIVE] if request.gate else None)
    return replace(total, counts=counts, rows=Moments(**rows) if request.keep_rows else None, tokens=tokens)


def _with_part(total: Tokens | None, new: Tokens, x: Tensor, samples: Index, positions: Index) -> Tokens:
    """The positions of some rows put in their places; NaN in those that nobody has put there."""
    n, c, p = x.shape
    if total is None:
        nothing = new.mean.new_full((2, n, p), torch.nan)
        total = Tokens(nothing[0], nothing[1], new.sums.new_zeros((2, c)))
    there = torch.arange(n)[samples][:, None], torch.arange(p)[positions]
    # the tokens of a packed sequence may be positions of one row, and samples of x
    size = total.mean[there].shape
    total.mean[there], total.log_square[there] = new.mean.reshape(size), new.log_square.reshape(size)
    return total._replace(sums=total.sums + new.sums)


def count_valid(
    x: Tensor, valid: Valid | None, gate: Affine | None, bins: Affine | None, share: Share = WHOLE
) -> Counts:
    """As `count`, of the positions that are valid; of all where `valid` is None."""
    if valid is None or (gate is None and bins is None):
        return count(x, gate, bins, share)
    parts = [
        count(part, _of(gate, samples), _of(bins, samples), part_share)
        for samples, part, part_share in valid.cut(x, share)
    ]
    return Counts(*(_sum(values) for values in zip(*parts, strict=True)))


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
