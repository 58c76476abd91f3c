"""Many rows side by side: channels are neighbors in memory, and each channel is a lane.

For channels_last images and tokens, where the values of one row lie far apart. Positions are taken
in blocks; within a block every lane keeps its sums in float32 (float64 for itself), and blocks add
in float64. Rows that need care are read again, one by one, as in `rows`.

All that a lane keeps lies on one flat `board`, LANES entries for each of the fields below: from one
array at constant distances the compiler can tell that lanes do not overlap, and makes vector code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu import channels, tasks
from bnprobe.reductions.cpu.channels import LANES
from bnprobe.reductions.cpu.fallback import (
    is_constant,
    is_far,
    look_again,
    n_unusual,
    needs_care,
    sum_exactly,
)
from bnprobe.reductions.cpu.llvm import (
    add_terms,
    larger,
    njit_fast,
    njit_strict,
    plus,
    real,
    smaller,
    stack,
    stack_of_reals,
    value,
)
from bnprobe.reductions.cpu.rows import N_PILOT
from bnprobe.reductions.cpu.terms import N_TERMS, terms

BLOCK = 64
"""Positions summed in float32 before they join a float64 sum."""

S1, S2, S3, S4, TERM = (field * LANES for field in range(5))
SUMS = TERM + N_TERMS * LANES
LOW, HIGH, PILOT, TURN, BAR = (SUMS + field * LANES for field in range(5))
BOARD = SUMS + 5 * LANES

lanes_board, block_board = stack_of_reals(BOARD), stack(SUMS)


@njit_fast
def set_pilots(x: Any, start: int, n: int, stride: int, board: Any, width: int) -> None:
    """The mean of a few values spread over each row: see `rows.pilot`."""
    many = N_PILOT
    while many > n:
        many //= 2
    share = real(x, 1.0 / many)
    step = n // many * stride
    for c in range(width):
        board[PILOT + c] = real(x, 0.0)
    for i in range(many):
        for c in range(width):
            board[PILOT + c] += value(x, start + i * step + c) * share


@njit_fast
def add_four(x: Any, at: int, stride: int, board: Any, width: int) -> None:
    """Add four positions to every lane: four at a time, because a lane's sums pass through memory."""
    for c in range(width):
        v0, v1 = value(x, at + c), value(x, at + stride + c)
        v2, v3 = value(x, at + 2 * stride + c), value(x, at + 3 * stride + c)
        k, turn, bar = board[PILOT + c], board[TURN + c], board[BAR + c]
        d0, d1, d2, d3 = v0 - k, v1 - k, v2 - k, v3 - k
        q0, q1, q2, q3 = d0 * d0, d1 * d1, d2 * d2, d3 * d3
        board[S1 + c] += (d0 + d1) + (d2 + d3)
        board[S2 + c] += (q0 + q1) + (q2 + q3)
        board[S3 + c] += (q0 * d0 + q1 * d1) + (q2 * d2 + q3 * d3)
        board[S4 + c] += (q0 * q0 + q1 * q1) + (q2 * q2 + q3 * q3)
        board[LOW + c] = smaller(board[LOW + c], smaller(smaller(v0, v1), smaller(v2, v3)))
        board[HIGH + c] = larger(board[HIGH + c], larger(larger(v0, v1), larger(v2, v3)))
        first = plus(terms(v0, True, turn, bar), terms(v1, True, turn, bar))
        second = plus(terms(v2, True, turn, bar), terms(v3, True, turn, bar))
        add_terms(board, TERM + c, LANES, plus(first, second))


@njit_fast
def add_one(x: Any, at: int, board: Any, width: int) -> None:
    """Add one position to every lane."""
    for c in range(width):
        v = value(x, at + c)
        d = v - board[PILOT + c]
        q = d * d
        board[S1 + c] += d
        board[S2 + c] += q
        board[S3 + c] += q * d
        board[S4 + c] += q * q
        board[LOW + c] = smaller(board[LOW + c], v)
        board[HIGH + c] = larger(board[HIGH + c], v)
        add_terms(board, TERM + c, LANES, terms(v, True, board[TURN + c], board[BAR + c]))


@njit_fast
def flush(board: Any, sums: Any) -> None:
    """Add the lanes' sums to the float64 ones and clear them; extremes stay where they are."""
    for i in range(SUMS):
        sums[i] += np.float64(board[i])
    for i in range(SUMS):
        board[i] = 0


@njit_strict
def column_sums(x: Any, start: int, n: int, stride: int, board: Any, sums: Any, width: int) -> None:
    """The sums of `width` neighboring rows into `sums`, and their extremes onto the board."""
    for i in range(SUMS):
        board[i], sums[i] = 0.0, 0.0
    for c in range(width):
        board[LOW + c], board[HIGH + c] = np.inf, -np.inf
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        whole = last - (last - first) % 4
        for p in range(first, whole, 4):
            add_four(x, start + p * stride, stride, board, width)
        for p in range(whole, last):
            add_one(x, start + p * stride, board, width)
        flush(board, sums)


@njit_strict
def write_rows(board: Any, sums: Any, n: int, rows: Any, width: int) -> None:
    """What `column_sums` found, as rows of a chunk."""
    for c in range(width):
        rows[channels.POINT + c] = np.float64(board[PILOT + c])
        rows[channels.N + c] = np.float64(n)
        rows[channels.LOW + c] = np.float64(board[LOW + c])
        rows[channels.HIGH + c] = np.float64(board[HIGH + c])
        rows[channels.S1 + c], rows[channels.S2 + c] = sums[S1 + c], sums[S2 + c]
        rows[channels.S3 + c], rows[channels.S4 + c] = sums[S3 + c], sums[S4 + c]
    for term in range(N_TERMS):
        for c in range(width):
            rows[channels.TERM + term * LANES + c] = sums[TERM + term * LANES + c]


@njit_strict
def retry_row(x: Any, start: int, n: int, stride: int, board: Any, rows: Any, c: int) -> None:
    """Sum a row again, by itself, if the first sums will not do."""
    if is_constant(rows, c):
        return
    turn, bar = board[TURN + c], board[BAR + c]
    if is_far(rows[channels.N + c], rows[channels.S1 + c], rows[channels.S2 + c]):
        sum_exactly(x, start, n, stride, turn, bar, rows, c)
    elif needs_care(rows[channels.N + c], rows[channels.S4 + c]):
        look_again(x, start, n, stride, turn, bar, rows, c)


@njit_strict
def sum_columns(x: Any, task: Any, n: int, first: int, width: int, rows: Any, board: Any, block: Any) -> None:
    """The rows of image n and `width` channels from `first`, at most LANES, side by side.

    `board` has BOARD entries of the values' type and `block` SUMS of float64. The board holds the
    gates, and as pilots the means of the image before (NaN before the first).
    """
    size, stride = task[tasks.P], task[tasks.SP]
    start = n * task[tasks.SN] + first
    unknown = np.int64(0)
    for c in range(width):
        unknown += np.int64(not np.isfinite(board[PILOT + c]))
    if unknown:
        set_pilots(x, start, size, stride, board, width)
    column_sums(x, start, size, stride, board, block, width)
    write_rows(board, block, size, rows, width)
    if n_unusual(rows, width):
        for c in range(width):
            retry_row(x, start + c, size, stride, board, rows, c)
