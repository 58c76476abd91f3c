"""Where the compiled code is entered: each entry does pieces of the task until none is left.

Any number of threads may do so at once. An entry is compiled for a type of memory. Its one argument
is the address of the task; it is declared as a pointer to the type of the values, which is how the
code comes to know that type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bnprobe.condense.kernels import channels, tasks
from bnprobe.condense.kernels.columns import sum_columns
from bnprobe.condense.kernels.lanes import floats, memory, plain, take, words
from bnprobe.condense.kernels.places import positions_of_image
from bnprobe.condense.kernels.rows import sum_rows
from bnprobe.condense.kernels.tally import PLACES, tally_columns, tally_rows, write_tally


@plain
def finish(task: Any, group: int, first: int, last: int, sums: Any) -> None:
    """Write the channels of one piece of work."""
    out = floats(task[tasks.OUT] + 8 * group * channels.N_OUT * task[tasks.C])
    for c in range(first, last):
        channels.finish(sums, c - first, out, task[tasks.C], c, channels.origin_of(task, c))


@plain
def sweep(pointer: Any, side_by_side: bool) -> None:
    """Moments of every channel; `side_by_side` where channels are neighbours in memory."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    while True:
        group, n0, n1, first, last = tasks.next_turn(task)
        if group < 0:
            break
        sums = channels.empty_sums(last - first)
        if side_by_side:
            sum_columns(x, task, n0, n1, first, last, sums)
        else:
            sum_rows(x, task, n0, n1, first, last, sums)
        finish(task, group, first, last, sums)


@plain
def tally(pointer: Any, side_by_side: bool) -> None:
    """Counts of every channel."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    while True:
        group, n0, n1, first, last = tasks.next_turn(task)
        if group < 0:
            break
        counts = np.zeros((last - first, 2 * PLACES), np.int64)
        passed = np.zeros(last - first)
        if side_by_side:
            tally_columns(x, task, n0, n1, first, last, counts, passed)
        else:
            tally_rows(x, task, n0, n1, first, last, counts, passed)
        write_tally(task, group, first, last, counts, passed)


@plain
def norm_positions(pointer: Any) -> None:
    """Mean and log variance over channels of every position: images are the work to share."""
    task = words(pointer)
    x = memory(task[tasks.X], pointer)
    while True:
        n = take(task, tasks.NEXT, 1)
        if n >= task[tasks.N]:
            break
        positions_of_image(x, task, n)


def entries(stamp: str) -> dict[str, Callable[[Any], None]]:
    """Every entry by name.

    numba keeps compiled code by the file of the entry alone. The stamp, a constant of each function,
    joins what it looks it up by, so that a change in any file of this folder is seen.
    """

    def sum_rows(pointer: Any) -> None:
        stamp  # noqa: B018
        sweep(pointer, False)

    def sum_columns(pointer: Any) -> None:
        stamp  # noqa: B018
        sweep(pointer, True)

    def tally_rows(pointer: Any) -> None:
        stamp  # noqa: B018
        tally(pointer, False)

    def tally_columns(pointer: Any) -> None:
        stamp  # noqa: B018
        tally(pointer, True)

    def positions(pointer: Any) -> None:
        stamp  # noqa: B018
        norm_positions(pointer)

    every = (sum_rows, sum_columns, tally_rows, tally_columns, positions)
    return {entry.__name__: entry for entry in every}
