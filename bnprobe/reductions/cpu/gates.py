"""The gate as one comparison: scale * (x - origin) + offset > 0 if and only if turn * x > bar.

`turn` is the sign of the scale, so that one loop serves both signs, and the bar is rounded down in
the type of the values, so that the comparison says for every value what float64 would say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.llvm import floats, njit_strict, real, rounded_down


@njit_strict
def gate_of(x: Any, task: Any, n: int, c: int) -> Any:
    """`turn` and `bar` of sample n and channel c; nothing passes where there is no gate."""
    never = real(x, 1.0), real(x, np.inf)
    if task[tasks.GATE_SCALE] == 0:
        return never
    at = n * task[tasks.GATE_STRIDE] + c
    origin = floats(task[tasks.GATE_ORIGIN])[at]
    scale = floats(task[tasks.GATE_SCALE])[at]
    offset = floats(task[tasks.GATE_OFFSET])[at]
    if scale == 0:  # a constant: 0 * x > -1 holds for every finite x
        return real(x, 0.0), real(x, -1.0 if offset > 0 else np.inf)
    edge = origin - offset / scale
    if np.isnan(edge):
        return never
    turn = 1.0 if scale > 0 else -1.0
    return real(x, turn), rounded_down(x, turn * edge)


@njit_strict
def set_gates(x: Any, task: Any, n: int, first: int, width: int, board: Any, turn: int, bar: int) -> None:
    """The gates of sample n and `width` channels from `first`, onto the board from entries `turn` and `bar`."""
    for i in range(width):
        board[turn + i], board[bar + i] = gate_of(x, task, n, first + i)
