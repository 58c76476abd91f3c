"""Row by row: the power sums of one channel of one image, about a point inside the data.

Lanes are in the type of the values (float32 for halves), in blocks short enough that they keep their
digits; blocks add in float64. The point (the "pilot") is the mean of the channel's row in the image
before, for the first image that of a few values spread over the row, so that data far from zero lose
nothing. Where it turns out far from the row's own mean, or the sums are not finite, or too small for
float32, the row is read again with more care.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.channels import HIGH, LANES, LOW, POINT, S1, S2, S3, S4, TERM, N
from bnprobe.reductions.cpu.fallback import (
    BLOCK,
    STRIDED_BLOCK,
    is_constant,
    is_far,
    look_again,
    needs_care,
)
from bnprobe.reductions.cpu.llvm import (
    add_terms,
    larger,
    njit_fast,
    njit_strict,
    nothing,
    plus,
    real,
    smaller,
    value,
)
from bnprobe.reductions.cpu.terms import N_TERMS, terms
from bnprobe.reductions.cpu.vector_sums import vector_sums
from bnprobe.reductions.cpu.vectors import WIDTH

AHEAD = 2048
"""Values between those that are summed and those that memory is asked for: some pages."""

N_PILOT = 16
"""At most so many values make the pilot; a power of two, so that a constant row has itself as pilot."""


@njit_strict
def pilot(x: Any, start: int, n: int, stride: int) -> Any:
    """The mean of a few values spread over a row."""
    many = N_PILOT
    while many > n:
        many //= 2
    step = n // many * stride
    total = real(x, 0.0)
    for i in range(many):
        total += value(x, start + i * step)
    return total * real(x, 1.0 / many)


@njit_fast
def block_sums(x: Any, start: int, n: int, stride: int, k: Any, turn: Any, bar: Any) -> Any:
    """Sums of (v - k) to the fourth power, both extremes, and the sums of `terms`."""
    s1 = s2 = s3 = s4 = real(x, 0.0)
    low, high = real(x, np.inf), real(x, -np.inf)
    more = nothing(terms(low, True, turn, bar))
    for i in range(n):
        v = value(x, start + i * stride)
        d = v - k
        d2 = d * d
        s1 += d
        s2 += d2
        s3 += d2 * d
        s4 += d2 * d2
        low = smaller(low, v)
        high = larger(high, v)
        more = plus(more, terms(v, True, turn, bar))
    return s1, s2, s3, s4, low, high, more


@njit_strict
def sums_about(
    x: Any, start: int, n: int, stride: int, ahead: int, k: Any, turn: Any, bar: Any, rows: Any, c: int
) -> None:
    """`block_sums` of a row of any length, in float64, as row c of its chunk."""
    rows[POINT + c], rows[N + c] = np.float64(k), np.float64(n)
    for field in (S1, S2, S3, S4):
        rows[field + c] = 0.0
    for term in range(N_TERMS):
        rows[TERM + term * LANES + c] = 0.0
    rows[LOW + c], rows[HIGH + c] = np.inf, -np.inf
    if stride != 1 or n < WIDTH:
        for at in range(0, n, STRIDED_BLOCK):
            some = min(STRIDED_BLOCK, n - at)
            add_block(rows, c, block_sums(x, start + at * stride, some, stride, k, turn, bar))
    elif n <= BLOCK:
        add_block(rows, c, vector_sums(x, start, n, ahead, k, turn, bar))
    else:
        blocks = -(-n // BLOCK)
        for i in range(blocks):  # of nearly one length, so that none is shorter than a vector
            first, last = n * i // blocks, n * (i + 1) // blocks
            add_block(rows, c, vector_sums(x, start + first, last - first, ahead, k, turn, bar))


@njit_strict
def add_block(rows: Any, c: int, part: Any) -> None:
    """Add the sums of a block to row c of its chunk."""
    rows[S1 + c] += part[0]
    rows[S2 + c] += part[1]
    rows[S3 + c] += part[2]
    rows[S4 + c] += part[3]
    rows[LOW + c] = min(rows[LOW + c], np.float64(part[4]))
    rows[HIGH + c] = max(rows[HIGH + c], np.float64(part[5]))
    add_terms(rows, TERM + c, LANES, part[6])


@njit_strict
def retry_row(x: Any, start: int, n: int, stride: int, turn: Any, bar: Any, rows: Any, c: int) -> None:
    """Sum a row again if the first sums will not do: about its own mean, or by a fallback."""
    if is_far(rows[N + c], rows[S1 + c], rows[S2 + c]):
        k = real(x, rows[POINT + c] + rows[S1 + c] / rows[N + c])
        sums_about(x, start, n, stride, 0, k, turn, bar, rows, c)
    if not is_constant(rows, c) and needs_care(rows[N + c], rows[S4 + c]):
        look_again(x, start, n, stride, turn, bar, rows, c)


@njit_strict
def ahead_of(task: Any, row: int, first: int, last: int) -> Any:
    """From a channel's row to what is read AHEAD values later, if images follow each other in a piece of
    work on the channels `first` to `last`. It need not exist: nothing but time depends on it."""
    size = task[tasks.P]
    if (last - row) * size > AHEAD:
        return AHEAD
    return AHEAD + task[tasks.SN] - (last - first) * size


@njit_strict
def sum_rows(x: Any, task: Any, n: int, first: int, width: int, ends: Any, rows: Any, board: Any) -> None:
    """The rows of image n and `width` channels from `first`, one at a time; `ends` are those of the piece.

    The board has three entries for each channel of the piece: where its row of the image before had its
    mean (NaN before the first), and its gate.
    """
    size, stride = task[tasks.P], task[tasks.SP]
    start, at = n * task[tasks.SN] + first * task[tasks.SC], first - ends[0]
    many = ends[1] - ends[0]
    for c in range(width):
        row = start + c * task[tasks.SC]
        k, turn, bar = board[at + c], board[many + at + c], board[2 * many + at + c]
        if not np.isfinite(k):
            k = pilot(x, row, size, stride)
        sums_about(x, row, size, stride, ahead_of(task, first + c, ends[0], ends[1]), k, turn, bar, rows, c)


@njit_strict
def retry_rows(x: Any, task: Any, n: int, first: int, width: int, ends: Any, rows: Any, board: Any) -> None:
    """Sum those of the rows that `sum_rows` left again whose sums will not do; the arguments are the same.

    Not called by `sum_rows`, which is 4% slower on small rows with this inside it.
    """
    size, stride = task[tasks.P], task[tasks.SP]
    start, at = n * task[tasks.SN] + first * task[tasks.SC], first - ends[0]
    many = ends[1] - ends[0]
    for c in range(width):
        turn, bar = board[many + at + c], board[2 * many + at + c]
        retry_row(x, start + c * task[tasks.SC], size, stride, turn, bar, rows, c)
