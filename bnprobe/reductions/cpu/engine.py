"""The fast way on the CPU: compiled loops over the tensor's own memory, one read, no copy.

`read` and `count` say the same as those of `reference`, to the digits that float32 has: mean and
variance to 1e-6 of the spread, skewness and kurtosis to 1e-4; extremes and all counts exactly.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.reductions import reference
from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.channels import LANES
from bnprobe.reductions.cpu.launch import ELEMENTS, run
from bnprobe.reductions.packing import with_images
from bnprobe.reductions.reading import Counts, Reading, Tokens
from bnprobe.reductions.request import BASIC, WHOLE, Affine, PerSample, ReadRequest, Share
from bnprobe.stats import N_BINS, ImageMoments, Moments
from bnprobe.stats.fields import FIELDS, OF_MOMENTS, POSITIVE
from bnprobe.stats.moments import Array

SMALL = 1 << 17
"""Values below which a second thread costs more than it brings."""

STRETCH = 1 << 16
"""Values of one image in a piece of work where rows are: a long walk through memory, because every new
place costs some time until values come as fast as they can."""

PIECES = 4
"""Pieces of work for every thread, at least, where there are channels enough."""

CHUNK = 1 << 14
"""Values that rows of one chunk come to: they are still in the cache when they are counted."""


def can_read(x: Tensor) -> bool:
    """Whether the loops can walk over this tensor's memory."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.layout == torch.strided
    return plain and x.device.type == "cpu" and x.dtype in ELEMENTS and x.numel() > 0 and not x.is_neg()


def read(x: Tensor, request: ReadRequest = BASIC) -> Reading:
    """As `reference.read`."""
    origin, gate, bins, share, per_sample, keep_rows = request
    n, c, p = x.shape
    if origin is not None and len(origin) != c:  # loops do not look where an array ends
        raise ValueError(f"an origin for {len(origin)} channels, but the tensor has {c}.")
    # one value per image: take the images for positions, so that the loops have rows to walk along
    lone = p == 1 and not keep_rows and (gate is None or gate.scale.ndim == 1)
    walk = _Walk(x.transpose(0, 2) if lone else x)
    out = np.empty((walk.n_groups, len(FIELDS), c))
    rows = np.empty((len(OF_MOMENTS), n, c)) if keep_rows else None
    walk.task[tasks.OUT] = _address(out)
    walk.hold(tasks.ROWS, rows)
    walk.hold(tasks.ORIGIN, origin)
    walk.hold_map(tasks.GATE_ORIGIN, gate)
    histogram = None if lone else walk.hold_bins(bins, share)
    walk.run(walk.layout)
    for group in out[1:]:
        add(out[0], group)
    seen = tokens(x, per_sample) if per_sample else None
    reading = Reading(
        out[0],
        Counts(out[0][POSITIVE] if gate else None, _added(histogram)),
        Moments(*rows) if rows is not None else None,
        packed_positions(seen) if seen else None,
        seen,
    )
    if lone:
        return _lone(reading, x, request)
    return reading if origin is not None else reading.about(reading.moments.mean)


def _lone(reading: Reading, x: Tensor, request: ReadRequest) -> Reading:
    """What the loops cannot know when images were taken for positions: the spread over images, and
    which of them the histogram counts."""
    moments = reading.moments
    about = moments.mean if request.origin is None else request.origin
    return replace(
        reading,
        packed=with_images(reading.packed, ImageMoments.of_values(moments, about)),
        counts=reading.counts._replace(histogram=count(x, None, request.bins, request.share).histogram),
    )


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """As `reference.count`."""
    if gate is None and bins is None:
        return Counts()
    walk = _Walk(x)
    positive = np.empty((walk.n_groups, x.shape[1]))
    walk.hold(tasks.OUT, positive)
    walk.hold_map(tasks.GATE_ORIGIN, gate)
    histogram = walk.hold_bins(bins, share)
    walk.run("counts")
    return Counts(_added(positive) if gate else None, _added(histogram))


def tokens(x: Tensor, asked: PerSample) -> Tokens:
    """As `reference.tokens`."""
    walk = _Walk(x)
    out = torch.empty((2, x.shape[0], x.shape[2]), dtype=torch.float64)
    sums = torch.zeros((walk.n_threads, 2, x.shape[1]), dtype=torch.float64)
    walk.task[tasks.OUT], walk.task[tasks.ROWS], walk.task[tasks.WIDE] = out.data_ptr(), sums.data_ptr(), 0
    walk.hold(tasks.EPS, np.array([asked.eps]))
    walk.task[tasks.CENTRED] = asked.centred
    walk.run("positions")
    return Tokens(out[0], out[1], sums.sum(0))


def packed_positions(seen: Tokens) -> Array:
    """As `reference.positions`, packed: the mean and the log variance as two channels."""
    both = torch.stack([seen.mean, seen.log_square]).reshape(1, 2, -1)
    return read(both, ReadRequest(origin=np.zeros(2))).packed


def products(w: Tensor, g: Tensor) -> Array:
    """As `reference.products`."""
    if not _are_rows(w, g):
        return reference.products(w, g)
    n, size = w.shape
    out, task = np.empty((3, n)), [0] * tasks.SIZE
    task[tasks.OUT], task[tasks.X], task[tasks.ORIGIN] = _address(out), w.data_ptr(), g.data_ptr()
    task[tasks.C], task[tasks.P], task[tasks.SN], task[tasks.SC] = n, size, w.stride(0), g.stride(0)
    task[tasks.STEP] = max(1, SMALL // 8 // max(size, 1))
    run("products", w.dtype, task, 1 if n * size < SMALL else torch.get_num_threads())
    return out


def _are_rows(w: Tensor, g: Tensor) -> bool:
    """Whether values of a channel are neighbors in both, and both of one shape and type."""
    neighbours = w.shape == g.shape and w.stride(1) == 1 and g.stride(1) == 1
    return neighbours and w.dtype == g.dtype and can_read(w) and can_read(g)


def add(total: Array, new: Array) -> None:
    """As `packing.add`."""
    _run_addition("add", total, new, None)


def add_mapped(total: Array, new: Array, map_: Affine) -> None:
    """As `packing.add_mapped`."""
    _run_addition("add_mapped", total, new, map_)


def _run_addition(entry: str, total: Array, new: Array, map_: Affine | None) -> None:
    if total.shape != new.shape:  # loops do not look where an array ends
        raise ValueError(f"readings of shapes {total.shape} and {new.shape} do not add.")
    task = [0] * tasks.SIZE
    new = np.ascontiguousarray(new)
    task[tasks.OUT], task[tasks.X], task[tasks.C] = _address(total), _address(new), total.shape[1]
    if map_ is not None:
        task[tasks.GATE_ORIGIN : tasks.GATE_ORIGIN + 4] = map_.layout
    run(entry, torch.float64, task, 1)


def _address(array: Any) -> int:
    try:  # a third of the time of any other way, when caches are cold
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):  # read-only
        address: int = array.__array_interface__["data"][0]
        return address


class _Walk:
    """A task for the loops: the tensor, and everything whose address is handed over."""

    def __init__(self, x: Tensor) -> None:
        self.dtype = x.dtype
        self.held: list[Any] = [x]
        self.task = task = [0] * tasks.SIZE
        task[: tasks.SP + 1] = x.data_ptr(), *x.shape, *x.stride()
        _, n, c, p, _, sc, sp = task[: tasks.SP + 1]
        self.n_channels = c
        self.n_threads = 1 if n * c * p < SMALL else torch.get_num_threads()
        # with one channel at distance 1, or rows whose values are not neighbours
        self.layout = "columns" if sc == 1 and sp != 1 and c > 1 else "rows"
        step, wide = (LANES, LANES) if self.layout == "columns" else self._rows_at_a_time(c, p)
        # few channels: groups of images make more pieces, and their results are merged
        self.n_groups = min(n, 2 * self.n_threads) if -(-c // step) < self.n_threads else 1
        task[tasks.STEP], task[tasks.GROUPS], task[tasks.WIDE] = step, self.n_groups, wide

    def _rows_at_a_time(self, n_channels: int, n_positions: int) -> tuple[int, int]:
        """Channels of one piece, a long stretch of memory with some pieces for every thread; of one chunk."""
        step = max(min(STRETCH // n_positions, -(-n_channels // (PIECES * self.n_threads))), 8)
        return step, max(min(CHUNK // n_positions // 8 * 8, LANES), 8)

    def hold(self, field: int, array: Array | None) -> None:
        """Hand over the address of a C-contiguous float64 array, which must outlive the run."""
        if array is not None:
            array = np.ascontiguousarray(array, dtype=np.float64)
            self.held.append(array)
            self.task[field] = _address(array)

    def hold_map(self, field: int, map_: Affine | None) -> None:
        """Hand over a map: origin, scale, offset, and the distance from sample to sample."""
        if map_ is None:
            return
        self.held.append(map_)
        self.task[field : field + 4] = map_.layout

    def hold_bins(self, bins: Affine | None, share: Share) -> Any:
        """Ask for the histogram; where its counts will be, shape (groups, C, N_BINS)."""
        if bins is None:
            return None
        histogram = np.empty((self.n_groups, self.n_channels, N_BINS), np.int32)
        self.task[tasks.HISTOGRAM] = _address(histogram)
        self.hold_map(tasks.BIN_ORIGIN, bins)
        self.task[tasks.EVERY], self.task[tasks.FIRST] = share.every, share.first
        return histogram

    def run(self, entry: str) -> None:
        """Run one of the compiled entries over the task."""
        run(entry, self.dtype, self.task, self.n_threads)


def _added(groups: Any) -> Any:
    """The counts of all groups together; None for None."""
    if groups is None or len(groups) == 1:
        return None if groups is None else groups[0]
    return groups.sum(axis=0)
