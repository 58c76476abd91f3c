"""The layout of a task: a block of int64 with sizes, strides and addresses; how threads share it.

Addresses that are 0 stand for what was not asked for.
"""

from __future__ import annotations

from typing import Any

from bnprobe.reductions.cpu.llvm import njit_strict, take

X, N, C, P, SN, SC, SP = range(7)
"""The address of the values; sizes N, C, P; strides in elements."""

NEXT, STEP, GROUPS = range(7, 10)
"""Threads take a group of images and STEP of its channels at a time, by adding to NEXT."""

OUT, ROWS, ORIGIN = range(10, 13)
"""Addresses of float64: the output, the moments of rows, the origin of each channel's mean squares."""

GATE_ORIGIN, GATE_SCALE, GATE_OFFSET, GATE_STRIDE = range(13, 17)
BIN_ORIGIN, BIN_SCALE, BIN_OFFSET, BIN_STRIDE = range(17, 21)
"""Addresses of the maps, and the distance of one sample's map to the next (0: one for all)."""

EVERY, FIRST, HISTOGRAM = range(21, 24)
"""Which images the histogram counts (see `values.Share`), and where its counts go."""

CENTRED, EPS = range(24, 26)
"""How a norm over channels works; the address of its eps."""

WIDE = 26
"""Channels of a chunk, which are summed one after the other before they join what was summed before."""

SIZE = 27


@njit_strict
def next_turn(task: Any) -> Any:
    """The next piece of work: group, first and last image, first and last channel; group -1 for none."""
    turns = -(-task[C] // task[STEP])
    turn = take(task, NEXT, 1)
    group = turn // turns
    if group >= task[GROUPS]:
        return -1, 0, 0, 0, 0
    channel = turn % turns * task[STEP]
    return (
        group,
        group * task[N] // task[GROUPS],
        (group + 1) * task[N] // task[GROUPS],
        channel,
        min(channel + task[STEP], task[C]),
    )
