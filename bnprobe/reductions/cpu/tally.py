"""Counting: for how many values the gate is positive, and how many fall in each bin of the histogram.

The bin of z comes from the bits of u = 1 + |z| as float64: its exponent and the three highest bits
of its mantissa are the octave and the step of `stats.histogram`, so edges are exact. Bins of a run of
values are found first, in vector code; then they are counted one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.gates import gate_of
from bnprobe.reductions.cpu.llvm import bits, counters, floats, njit_fast, njit_strict, stack, value
from bnprobe.reductions.cpu.vector_bins import INFINITE, N_BINS, ONE, REST, SHIFT, SIDE, vector_bins
from bnprobe.reductions.cpu.vectors import WIDTH

PLACES = 128
"""Entries kept per channel: the bins, and spare ones so that a channel starts on its own cache line."""

RUN = 512
"""Values whose bins are found before they are counted."""

BANKS = 2
"""Counts of a channel that take turns, because an entry that was just written is slow to read again."""

found_board = stack(RUN, types.uint8)
maps_board = stack(3 * RUN)


@njit_fast
def bin_of(z: float) -> Any:
    """The bin of z; REST where it is not finite."""
    step = bits(1.0 + np.abs(z)) >> SHIFT
    side = min(step - ONE, SIDE - 1)
    bin_ = SIDE - 1 - side if z < 0 else SIDE + side
    return np.uint8(REST if step >= INFINITE else bin_)


@njit_fast
def bins_of_run(x: Any, start: int, n: int, stride: int, map_: Any, found: Any) -> None:
    """Bins of values of one channel."""
    origin, scale, offset = map_
    for i in range(n):
        z = scale * (np.float64(value(x, start + i * stride)) - origin) + offset
        found[i] = bin_of(z)


@njit_fast
def bins_side_by_side(x: Any, start: int, n: int, maps: Any, found: Any) -> None:
    """Bins of one position of neighboring channels; `maps` holds three fields of RUN entries."""
    for c in range(n):
        z = maps[RUN + c] * (np.float64(value(x, start + c)) - maps[c]) + maps[2 * RUN + c]
        found[c] = bin_of(z)


@njit_fast
def positive_of_row(x: Any, start: int, n: int, stride: int, turn: Any, bar: Any) -> Any:
    """For how many values of one row the gate is positive."""
    count = np.int32(0)
    for i in range(n):
        count = np.int32(count + np.int32(turn * value(x, start + i * stride) > bar))
    return count


@njit_strict
def is_counted(task: Any, n: int) -> Any:
    """Whether the histogram counts image n: `request.Share.counts`."""
    return (task[tasks.FIRST] + n) % task[tasks.EVERY] == 0


@njit_strict
def bin_map(task: Any, n: int, c: int) -> Any:
    """Origin, scale and offset of the bins of sample n and channel c."""
    at = n * task[tasks.BIN_STRIDE] + c
    return (
        floats(task[tasks.BIN_ORIGIN])[at],
        floats(task[tasks.BIN_SCALE])[at],
        floats(task[tasks.BIN_OFFSET])[at],
    )


@njit_strict
def count_run(x: Any, start: int, n: int, stride: int, map_: Any, found: Any, counts: Any) -> None:
    """Count the values of one channel; `counts` are its BANKS times PLACES."""
    for at in range(0, n, RUN):
        some = min(RUN, n - at)
        if stride == 1 and some >= WIDTH:
            vector_bins(x, start + at, some, map_, found)
        else:
            bins_of_run(x, start + at * stride, some, stride, map_, found)
        pairs = some // 2 * 2
        for i in range(0, pairs, 2):
            counts[found[i]] += 1
            counts[PLACES + found[i + 1]] += 1
        if pairs < some:
            counts[found[pairs]] += 1


@njit_strict
def positive_of_rows(x: Any, task: Any, n: int, first: int, last: int, positive: Any) -> None:
    """Count the positive values of the gate in the rows of image n and the channels `first` to `last`."""
    for c in range(first, last):
        turn, bar = gate_of(x, task, n, c)
        start = n * task[tasks.SN] + c * task[tasks.SC]
        positive[c - first] += positive_of_row(x, start, task[tasks.P], task[tasks.SP], turn, bar)


@njit_strict
def bin_rows(x: Any, task: Any, n: int, first: int, last: int, counts: Any, found: Any) -> None:
    """Count the bins of image n and the channels `first` to `last`, one channel at a time."""
    for c in range(first, last):
        start = n * task[tasks.SN] + c * task[tasks.SC]
        mine = counters(counts.ctypes.data + 4 * (c - first) * BANKS * PLACES)
        count_run(x, start, task[tasks.P], task[tasks.SP], bin_map(task, n, c), found, mine)


@njit_strict
def bin_columns(x: Any, task: Any, n: int, first: int, last: int, counts: Any, found: Any, maps: Any) -> None:
    """Count the bins of image n and the channels `first` to `last` side by side, RUN of them at a time.

    Neighboring values belong to different channels, so no entry is read just after it was written.
    """
    for c in range(first, last, RUN):  # the boards end there
        bin_some_columns(x, task, n, c, min(c + RUN, last), counts[c - first :], found, maps)


@njit_strict
def bin_some_columns(
    x: Any, task: Any, n: int, first: int, last: int, counts: Any, found: Any, maps: Any
) -> None:
    """As `bin_columns`, of RUN channels at most."""
    width = last - first
    mine = counters(counts.ctypes.data)
    for c in range(width):
        maps[c], maps[RUN + c], maps[2 * RUN + c] = bin_map(task, n, first + c)
    for p in range(task[tasks.P]):
        bins_side_by_side(x, n * task[tasks.SN] + first + p * task[tasks.SP], width, maps, found)
        for c in range(width):
            mine[c * BANKS * PLACES + found[c]] += 1


@njit_strict
def write_positive(task: Any, group: int, first: int, positive: Any) -> None:
    """Write how many values were positive, shape (groups, C)."""
    out = floats(task[tasks.OUT])
    for c in range(len(positive)):
        out[group * task[tasks.C] + first + c] = positive[c]


@njit_strict
def write_bins(task: Any, group: int, first: int, counts: Any) -> None:
    """Write the counts of one piece of work, shape (groups, C, N_BINS)."""
    out = counters(task[tasks.HISTOGRAM])
    for c in range(len(counts)):
        at = (group * task[tasks.C] + first + c) * N_BINS
        for b in range(N_BINS):
            out[at + b] = counts[c, b] + counts[c, PLACES + b]
