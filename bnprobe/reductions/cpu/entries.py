"""Where the compiled code is entered: each entry does pieces of the task until none is left.

Any number of threads may do so at once. An entry is compiled for a type of memory. Its one argument
is the address of the task; it is declared as a pointer to the type of the values, which is how the
code comes to know that type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bnprobe.reductions.cpu import channels, tasks
from bnprobe.reductions.cpu.columns import BAR, PILOT, TURN, block_board, lanes_board, sum_columns
from bnprobe.reductions.cpu.fallback import n_unusual
from bnprobe.reductions.cpu.gates import set_gates
from bnprobe.reductions.cpu.llvm import floats, memory, njit_strict, real, take, words
from bnprobe.reductions.cpu.positions import positions_of_image
from bnprobe.reductions.cpu.products import products_of_rows
from bnprobe.reductions.cpu.rows import retry_rows, sum_rows
from bnprobe.reductions.cpu.tally import (
    BANKS,
    PLACES,
    bin_columns,
    bin_rows,
    found_board,
    is_counted,
    maps_board,
    positive_of_rows,
    write_bins,
    write_positive,
)
from bnprobe.reductions.cpu.totals import add_mapped_totals, add_totals


@njit_strict
def empty_sums(task: Any, first: int, last: int) -> Any:
    """Nothing added yet to the channels of a piece of work, chunk by chunk."""
    wide = task[tasks.WIDE]
    sums = np.empty((-(-(last - first) // wide), channels.SUMS))
    for i in range(len(sums)):
        c = first + i * wide
        channels.set_empty(task, sums[i], c, min(wide, last - c))
    return sums


@njit_strict
def write_sums(task: Any, group: int, first: int, last: int, sums: Any) -> None:
    """Write the channels of a piece of work."""
    wide = task[tasks.WIDE]
    for i in range(len(sums)):
        c = first + i * wide
        channels.write(task, group, c, min(wide, last - c), sums[i])


@njit_strict
def counts_board(task: Any, n_channels: int) -> Any:
    """Zeros for the counts of a piece of work; empty where no histogram is asked for."""
    return np.zeros((n_channels if task[tasks.HISTOGRAM] else 0, BANKS * PLACES), np.int32)


@njit_strict
def sum_by_rows(pointer: Any) -> None:
    """Moments and bins of every channel, row by row: each is counted while it is still in the cache."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    wide = task[tasks.WIDE]
    found, rows = found_board(), channels.rows_board()
    while True:
        group, n0, n1, first, last = tasks.next_turn(task)
        if group < 0:
            break
        sums, counts = empty_sums(task, first, last), counts_board(task, last - first)
        size = last - first
        board = np.full(3 * size, real(x, np.nan))
        for n in range(n0, n1):
            if n == n0 or task[tasks.GATE_STRIDE]:
                set_gates(x, task, n, first, size, board, size, 2 * size)
            counted = len(counts) > 0 and is_counted(task, n)
            for i in range(len(sums)):
                at, c = i * wide, first + i * wide
                width = min(wide, last - c)
                sum_rows(x, task, n, c, width, (first, last), rows, board)
                if n_unusual(rows, width):
                    retry_rows(x, task, n, c, width, (first, last), rows, board)
                channels.join(task, rows, sums[i], n, c, width)
                for j in range(width):
                    board[at + j] = real(x, rows[channels.MEAN + j])
                if counted:
                    bin_rows(x, task, n, c, c + width, counts[at:], found)
        write_sums(task, group, first, last, sums)
        write_bins(task, group, first, counts)


@njit_strict
def sum_by_columns(pointer: Any) -> None:
    """Moments and bins of every channel, where channels are neighbors."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    board, block, rows = lanes_board(x), block_board(), channels.rows_board()
    found, maps = found_board(), maps_board()
    while True:
        group, n0, n1, first, last = tasks.next_turn(task)
        if group < 0:
            break
        width = last - first
        sums, counts = empty_sums(task, first, last), counts_board(task, width)
        for c in range(width):
            board[PILOT + c] = real(x, np.nan)
        for n in range(n0, n1):
            if n == n0 or task[tasks.GATE_STRIDE]:
                set_gates(x, task, n, first, width, board, TURN, BAR)
            sum_columns(x, task, n, first, width, rows, board, block)
            channels.join(task, rows, sums[0], n, first, width)
            for c in range(width):
                board[PILOT + c] = real(x, rows[channels.MEAN + c])
            if len(counts) and is_counted(task, n):
                bin_columns(x, task, n, first, last, counts, found, maps)
        write_sums(task, group, first, last, sums)
        write_bins(task, group, first, counts)


@njit_strict
def tally(pointer: Any) -> None:
    """Positive values of the gate, and bins, without the moments."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    found, maps = found_board(), maps_board()
    while True:
        group, n0, n1, first, last = tasks.next_turn(task)
        if group < 0:
            break
        positive, counts = np.zeros(last - first), counts_board(task, last - first)
        for n in range(n0, n1):
            if task[tasks.GATE_SCALE]:
                positive_of_rows(x, task, n, first, last, positive)
            if len(counts) and is_counted(task, n):
                if task[tasks.SC] == 1:
                    bin_columns(x, task, n, first, last, counts, found, maps)
                else:
                    bin_rows(x, task, n, first, last, counts, found)
        write_positive(task, group, first, positive)
        write_bins(task, group, first, counts)


@njit_strict
def norm_positions(pointer: Any) -> None:
    """Mean and log variance over channels of every position: images are the work to share.

    Each thread takes a place for the sums of what it saw.
    """
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    size = 2 * task[tasks.C]
    sums, mine = np.zeros(size), take(task, tasks.WIDE, 1) * size
    while True:
        n = take(task, tasks.NEXT, 1)
        if n >= task[tasks.N]:
            break
        positions_of_image(x, task, n, sums)
    places = floats(task[tasks.ROWS])
    for i in range(size):
        places[mine + i] = sums[i]


def entries(stamp: str) -> dict[str, Callable[[Any], None]]:
    """Every entry by name.

    numba keeps compiled code by the file of the entry alone. The stamp, a constant of each function,
    joins what it looks it up by, so that a change in any file of this folder is seen.
    """

    def rows(pointer: Any) -> None:
        stamp  # noqa: B018
        sum_by_rows(pointer)

    def columns(pointer: Any) -> None:
        stamp  # noqa: B018
        sum_by_columns(pointer)

    def counts(pointer: Any) -> None:
        stamp  # noqa: B018
        tally(pointer)

    def positions(pointer: Any) -> None:
        stamp  # noqa: B018
        norm_positions(pointer)

    def products(pointer: Any) -> None:
        stamp  # noqa: B018
        products_of_rows(pointer, words(pointer))

    def add(pointer: Any) -> None:
        stamp  # noqa: B018
        task = words(pointer)
        add_totals(task[tasks.OUT], task[tasks.X], task[tasks.C])

    def add_mapped(pointer: Any) -> None:
        stamp  # noqa: B018
        task = words(pointer)
        maps = (
            floats(task[tasks.GATE_ORIGIN]),
            floats(task[tasks.GATE_SCALE]),
            floats(task[tasks.GATE_OFFSET]),
        )
        add_mapped_totals(task[tasks.OUT], task[tasks.X], task[tasks.C], maps)

    return {entry.__name__: entry for entry in (rows, columns, counts, positions, products, add, add_mapped)}
