"""What a layer or RMS norm itself computes: at each position, the mean and variance over channels; and of all positions
together, per channel, the sums of what it divides and of its square.

In float64 lanes, about the position's first channel, so that data far from zero lose nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.llvm import floats, njit_fast, njit_strict, value

LANES = 128
"""Positions summed side by side, where positions and not channels are neighbors."""


@njit_fast
def neighbours(x: Any, start: int, n: int, stride: int, k: float) -> Any:
    """Sums of (v - k) and its square over the channels of one position."""
    s1 = s2 = 0.0
    for c in range(n):
        d = np.float64(value(x, start + c * stride)) - k
        s1 += d
        s2 += d * d
    return s1, s2


@njit_fast
def add_channel(x: Any, start: int, stride: int, board: Any, width: int) -> None:
    """Add one channel to the sums of neighboring positions; the board holds k, s1 and s2."""
    for i in range(width):
        d = np.float64(value(x, start + i * stride)) - board[i]
        board[LANES + i] += d
        board[2 * LANES + i] += d * d


@njit_fast
def add_divided(x: Any, start: int, n: int, stride: int, mean: float, by: float, sums: Any) -> None:
    """Add z = (v - mean) * by over the channels of one position, and its square, to the sums of each channel."""
    for c in range(n):
        z = (np.float64(value(x, start + c * stride)) - mean) * by
        sums[c] += z
        sums[n + c] += z * z


@njit_fast
def divided_of_channel(x: Any, start: int, stride: int, board: Any, width: int) -> Any:
    """The same sums of one channel over neighboring positions; the board holds the means and the factors."""
    s1 = s2 = 0.0
    for i in range(width):
        z = (np.float64(value(x, start + i * stride)) - board[i]) * board[LANES + i]
        s1 += z
        s2 += z * z
    return s1, s2


@njit_strict
def add_positions(x: Any, task: Any, n: int, p0: int, width: int, board: Any, sums: Any) -> None:
    """Add what the norm divides at some positions of image n; positions with a value that is not finite are left out."""
    n_channels, at = task[tasks.C], n * task[tasks.P] + p0
    out, logs, whole = floats(task[tasks.OUT]), task[tasks.N] * task[tasks.P], True
    for i in range(width):
        board[i] = out[at + i] if task[tasks.CENTRED] else 0.0
        board[LANES + i] = math.exp(-0.5 * out[logs + at + i])
        whole = whole and math.isfinite(out[logs + at + i])
    start = n * task[tasks.SN] + p0 * task[tasks.SP]
    if whole and task[tasks.SC] != 1:
        for c in range(n_channels):
            s1, s2 = divided_of_channel(x, start + c * task[tasks.SC], task[tasks.SP], board, width)
            sums[c] += s1
            sums[n_channels + c] += s2
        return
    for i in range(width):
        if math.isfinite(out[logs + at + i]):
            place = start + i * task[tasks.SP]
            add_divided(x, place, n_channels, task[tasks.SC], board[i], board[LANES + i], sums)


@njit_strict
def write_position(task: Any, at: int, k: float, s1: float, s2: float) -> None:
    """The mean, and the log of variance (mean square, if not centered) + eps."""
    n = np.float64(task[tasks.C])
    m = s1 / n
    square = max(s2 / n - m * m, 0.0) if task[tasks.CENTRED] else s2 / n
    out = floats(task[tasks.OUT])
    out[at] = k + m
    out[task[tasks.N] * task[tasks.P] + at] = math.log(square + floats(task[tasks.EPS])[0])


@njit_strict
def positions_of_image(x: Any, task: Any, n: int, sums: Any) -> None:
    """All positions of image n, whichever way they lie; what the norm divides while it is in the cache."""
    board = np.zeros(3 * LANES)
    start, first = n * task[tasks.SN], n * task[tasks.P]
    for p0 in range(0, task[tasks.P], LANES):
        width = min(LANES, task[tasks.P] - p0)
        for i in range(width):
            at = start + (p0 + i) * task[tasks.SP]
            board[i] = np.float64(value(x, at)) if task[tasks.CENTRED] else 0.0
            board[LANES + i] = board[2 * LANES + i] = 0.0
            if task[tasks.SC] == 1:
                board[LANES + i], board[2 * LANES + i] = neighbours(x, at, task[tasks.C], 1, board[i])
        if task[tasks.SC] != 1:
            for c in range(task[tasks.C]):
                at = start + c * task[tasks.SC] + p0 * task[tasks.SP]
                add_channel(x, at, task[tasks.SP], board, width)
        for i in range(width):
            write_position(task, first + p0 + i, board[i], board[LANES + i], board[2 * LANES + i])
        add_positions(x, task, n, p0, width, board, sums)
