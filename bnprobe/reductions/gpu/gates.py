"""The gate as one comparison on the device: scale * (x - origin) + offset > 0 if and only if turn * x > bar.

As in `cpu.gates`: `turn` is the sign of the scale and the bar is rounded down in the type in which
values are computed, so that the comparison says for every value what float64 would say.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def map_at(maps: tl.tensor, plane: tl.tensor, at: tl.tensor, ok: tl.tensor) -> Any:
    """Origin, scale and offset: three planes of float64, one after the other."""
    origin = tl.load(maps + at, mask=ok, other=0.0)
    scale = tl.load(maps + plane + at, mask=ok, other=0.0)
    offset = tl.load(maps + 2 * plane + at, mask=ok, other=0.0)
    return origin, scale, offset


@triton.jit
def rounded_down(number: tl.tensor, WIDE: tl.constexpr) -> Any:
    """The largest value of type WIDE that is not above a float64 number."""
    near = number.to(WIDE)
    if tl.float32 == WIDE:
        bits = near.to(tl.int32, bitcast=True)
        # the next float below: one bit pattern less for a positive one, one more for a negative
        below = tl.where(near > 0, bits - 1, tl.where(near < 0, bits + 1, -2147483647))
        near = tl.where(near.to(tl.float64) > number, below.to(tl.float32, bitcast=True), near)
    return near


@triton.jit
def gate_of(gates: tl.tensor, plane: tl.tensor, at: tl.tensor, ok: tl.tensor, WIDE: tl.constexpr) -> Any:
    """`turn` and `bar` of rows, each in the type of the values; nothing passes a map that is not a number."""
    origin, scale, offset = map_at(gates, plane, at, ok)
    infinity = float("inf")
    edge = origin - offset / tl.where(scale == 0, 1.0, scale)
    turn = tl.where(scale > 0, 1.0, -1.0)
    # not above infinity: nothing
    bar = tl.where(edge == edge, turn * edge, infinity)
    # a constant: 0 * x > -1 holds for every finite x
    turn = tl.where(scale == 0, 0.0, turn)
    bar = tl.where(scale == 0, tl.where(offset > 0, -1.0, infinity), bar)
    return turn.to(WIDE), rounded_down(bar, WIDE)
