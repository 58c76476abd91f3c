"""How a layer's weights and their gradient meet: three sums for each channel, in one read of both."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.llvm import floats, memory, njit_fast, njit_strict, real, take, value

BLOCK = 1 << 11
"""Neighboring values summed in the type of the weights; blocks join in float64."""


@njit_fast
def block_products(w: Any, g: Any, at_w: int, at_g: int, n: int) -> Any:
    """Sums of w * w, g * g and w * g over n neighbors."""
    ww = gg = wg = real(w, 0.0)
    for i in range(n):
        a, b = value(w, at_w + i), value(g, at_g + i)
        ww += a * a
        gg += b * b
        wg += a * b
    return ww, gg, wg


@njit_strict
def products_of_rows(pointer: Any, task: Any) -> None:
    """A channel at a time until none is left. SN and SC are the distances of rows in w and in g."""
    w, g = memory(task[tasks.X], pointer), memory(task[tasks.ORIGIN], pointer)
    out, n, size = floats(task[tasks.OUT]), task[tasks.C], task[tasks.P]
    while True:
        first = take(task, tasks.NEXT, task[tasks.STEP])
        if first >= n:
            break
        for c in range(first, min(first + task[tasks.STEP], n)):
            ww = gg = wg = 0.0
            for i in range(0, size, BLOCK):
                at_w, at_g = c * task[tasks.SN] + i, c * task[tasks.SC] + i
                sums = block_products(w, g, at_w, at_g, min(BLOCK, size - i))
                ww += np.float64(sums[0])
                gg += np.float64(sums[1])
                wg += np.float64(sums[2])
            out[c], out[n + c], out[2 * n + c] = np.sqrt(ww), np.sqrt(gg), wg
