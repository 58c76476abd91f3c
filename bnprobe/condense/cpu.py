"""The fast way on the CPU: compiled loops over the tensor's own memory, one read, no copy.

`read` and `count` say the same as their twins in `plain`, to the digits that float32 has: mean and
variance to 1e-6 of the spread, skewness and kurtosis to 1e-4; extremes and all counts exactly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.condense.kernels import tasks
from bnprobe.condense.kernels.launch import ELEMENTS, run
from bnprobe.condense.packed import FIELDS, N_MOMENTS, POSITIVE, packed
from bnprobe.condense.values import WHOLE, Affine, Counts, Own, Reading, Share
from bnprobe.stats import N_BINS, ImageMoments, Moments
from bnprobe.stats.moments import Array

SMALL = 1 << 17
"""Values below which a second thread costs more than it brings."""

LANES = 64
"""Channels of one piece of work where channels are neighbours: as many as the loops take side by side."""

STRIDE = 1 << 13
"""Values of one image in a piece of work where rows are: neighbours long enough to be fetched ahead."""


def can_read(x: Tensor) -> bool:
    """Whether the loops can walk over this tensor's memory."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and x.layout == torch.strided
    return plain and x.device.type == "cpu" and x.dtype in ELEMENTS and x.numel() > 0 and not x.is_neg()


def read(
    x: Tensor,
    *,
    origin: Array | None = None,
    gate: Affine | None = None,
    bins: Affine | None = None,
    share: Share = WHOLE,
    own: Own | None = None,
    keep_rows: bool = False,
) -> Reading:
    """As `plain.read`."""
    n, c, p = x.shape
    # one value per image: take the images for positions, so that the loops have rows to walk along
    lone = p == 1 and not keep_rows and (gate is None or gate.scale.ndim == 1)
    walk = _Walk(x.transpose(0, 2) if lone else x)
    out = np.empty((walk.n_groups, len(FIELDS), c))
    rows = np.empty((N_MOMENTS, n, c)) if keep_rows else None
    walk.hold(tasks.OUT, out)
    walk.hold(tasks.ROWS, rows)
    walk.hold(tasks.ORIGIN, origin)
    walk.hold_map(tasks.GATE_ORIGIN, gate)
    histogram = None if lone else walk.hold_bins(bins, share)
    walk.run(walk.layout)
    for group in out[1:]:
        add(out[0], group)
    reading = Reading(
        out[0],
        Counts(out[0][POSITIVE] if gate else None, _added(histogram)),
        Moments(*rows) if rows is not None else None,
        packed_positions(x, own) if own else None,
    )
    if lone:
        return _lone(reading, x, origin, bins, share)
    return reading if origin is not None else reading.about(reading.moments.mean)


def _lone(reading: Reading, x: Tensor, origin: Array | None, bins: Affine | None, share: Share) -> Reading:
    """What the loops cannot know when images were taken for positions: the spread over images, and
    which of them the histogram counts."""
    moments = reading.moments
    images = ImageMoments.of_values(moments, moments.mean if origin is None else origin)
    return replace(
        reading,
        packed=packed(moments, images, reading.n_nonfinite),
        counts=replace(reading.counts, histogram=count(x, None, bins, share).histogram),
    )


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """As `plain.count`."""
    if gate is None and bins is None:
        return Counts()
    walk = _Walk(x)
    positive = np.empty((walk.n_groups, x.shape[1]))
    walk.hold(tasks.OUT, positive)
    walk.hold_map(tasks.GATE_ORIGIN, gate)
    histogram = walk.hold_bins(bins, share)
    walk.run("counts")
    return Counts(_added(positive) if gate else None, _added(histogram))


def packed_positions(x: Tensor, own: Own) -> Array:
    """As `plain.positions`, packed: the mean and the log variance as two channels."""
    walk = _Walk(x)
    out = torch.empty((1, 2, x.shape[0] * x.shape[2]), dtype=torch.float64)
    walk.task[tasks.OUT] = out.data_ptr()
    walk.hold(tasks.EPS, np.array([own.eps]))
    walk.task[tasks.CENTRED] = own.centred
    walk.run("positions")
    return read(out, origin=np.zeros(2)).packed


def add(total: Array, new: Array) -> None:
    """As `packed.add`."""
    _run_addition("add", total, new, None)


def add_mapped(total: Array, new: Array, map_: Affine) -> None:
    """As `packed.add_mapped`."""
    _run_addition("add_mapped", total, new, map_)


def _run_addition(entry: str, total: Array, new: Array, map_: Affine | None) -> None:
    task = np.zeros(tasks.SIZE, np.int64)
    new = np.ascontiguousarray(new)
    task[tasks.OUT], task[tasks.X], task[tasks.C] = _address(total), _address(new), total.shape[1]
    if map_ is not None:
        task[tasks.GATE_ORIGIN : tasks.GATE_ORIGIN + 4] = map_.layout
    run(entry, torch.float64, task, 1)


def _address(array: Any) -> int:
    # half the time of array.ctypes.data
    address: int = array.__array_interface__["data"][0]
    return address


class _Walk:
    """A task for the loops: the tensor, and everything whose address is handed over."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.held: list[Any] = []
        self.n_threads = 1 if x.numel() < SMALL else torch.get_num_threads()
        # with one channel at distance 1, or rows whose values are not neighbours
        self.layout = "columns" if x.stride(1) == 1 and x.stride(2) != 1 and x.shape[1] > 1 else "rows"
        step = LANES if self.layout == "columns" else self._rows_at_a_time()
        pieces = -(-x.shape[1] // step)
        # few channels: groups of images make more pieces, and their results are merged
        self.n_groups = min(x.shape[0], 2 * self.n_threads) if pieces < self.n_threads else 1
        self.task = np.zeros(tasks.SIZE, np.int64)
        self.task[: tasks.SP + 1] = x.data_ptr(), *x.shape, *x.stride()
        self.task[tasks.STEP], self.task[tasks.GROUPS] = step, self.n_groups

    def _rows_at_a_time(self) -> int:
        """Channels of one piece: a long stretch of memory, and still some pieces for every thread."""
        _, n_channels, n_positions = self.x.shape
        return max(min(STRIDE // n_positions, -(-n_channels // (4 * self.n_threads))), 8)

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
        histogram = np.empty((self.n_groups, self.x.shape[1], N_BINS), np.int32)
        self.task[tasks.HISTOGRAM] = _address(histogram)
        self.hold_map(tasks.BIN_ORIGIN, bins)
        self.task[tasks.EVERY], self.task[tasks.FIRST] = share.every, share.first
        return histogram

    def run(self, entry: str) -> None:
        """Run one of the compiled entries over the task."""
        run(entry, self.x.dtype, self.task, self.n_threads)


def _added(groups: Any) -> Any:
    """The counts of all groups together; None for None."""
    if groups is None or len(groups) == 1:
        return None if groups is None else groups[0]
    return groups.sum(axis=0)
