"""Counting on the device: positive values of a gate known late, and values per bin of the histogram.

The bin of z comes from the bits of u = 1 + |z| as float64, as in `cpu.tally`, so edges are exact. A
program counts values of one channel, whatever images they belong to, and adds its counts to the channel's.
Counts are float64, whole numbers, so that a total never overflows and needs no other type.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from bnprobe.reductions.gpu.gates import gate_of, map_at
from bnprobe.reductions.gpu.rows import is_positive, tile

N_BINS, SIDE = tl.constexpr(96), tl.constexpr(48)
"""As in `stats.histogram`; a test holds them together."""

PLACES = tl.constexpr(128)
"""Bins counted: a power of two; the last takes what is not finite or not there."""

SHIFT, ONE, INFINITE = tl.constexpr(49), tl.constexpr(1023 << 3), tl.constexpr(2047 << 3)


@triton.jit
def bin_of(z: tl.tensor, here: tl.tensor) -> Any:
    """The bin of each z; the last place for what does not count."""
    step = (1.0 + tl.abs(z)).to(tl.int64, bitcast=True) >> SHIFT
    side = tl.minimum(step - ONE, SIDE - 1)
    bin_ = tl.where(z < 0, SIDE - 1 - side, SIDE + side)
    return tl.where(here & (step < INFINITE), bin_, PLACES - 1).to(tl.int32)


@triton.jit(do_not_specialize=["C", "MAP_PLANE", "MAP_ROW", "EVERY", "FIRST", "SIZE"])
def bin_values(
    x: tl.tensor,
    counts: tl.tensor,
    maps: tl.tensor,
    C: tl.tensor,
    P: tl.tensor,
    SN: tl.tensor,
    SC: tl.tensor,
    SP: tl.tensor,
    MAP_PLANE: tl.tensor,
    MAP_ROW: tl.tensor,
    EVERY: tl.tensor,
    FIRST: tl.tensor,
    SIZE: tl.tensor,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """CHUNK of the SIZE values that one channel counts: those of image FIRST and of every EVERY-th from there.

    Grid: channels times chunks. `counts`, of shape (C, N_BINS), is added to.
    """
    c = (tl.program_id(0) % C).to(tl.int64)
    first = tl.program_id(0) // C * CHUNK
    found = tl.zeros([PLACES], tl.int32)
    for at in range(first, tl.minimum(first + CHUNK, SIZE), BLOCK):
        i = at + tl.arange(0, BLOCK)
        here = i < SIZE
        n = (FIRST + i // P * EVERY).to(tl.int64)
        v = tl.load(x + n * SN + c * SC + (i % P).to(tl.int64) * SP, mask=here, other=0).to(tl.float64)
        origin, scale, offset = map_at(maps, MAP_PLANE, n * MAP_ROW + c, here)
        found += tl.histogram(bin_of(scale * (v - origin) + offset, here), PLACES)
    b = tl.arange(0, PLACES)
    tl.atomic_add(
        counts + c * N_BINS + b, found.to(tl.float64), mask=(b < N_BINS) & (found > 0), sem="relaxed"
    )


@triton.jit(do_not_specialize=["GATE_PLANE", "GATE_ROW"])
def count_positive(
    x: tl.tensor,
    out: tl.tensor,
    gates: tl.tensor,
    C: tl.tensor,
    P: tl.tensor,
    SN: tl.tensor,
    SC: tl.tensor,
    SP: tl.tensor,
    GATE_PLANE: tl.tensor,
    GATE_ROW: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """Add to `out`, shape (C,), for how many values of one image and BC channels the gate is positive."""
    tiles = tl.cdiv(C, BC)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    c = tl.program_id(0) % tiles * BC + tl.arange(0, BC)
    channels = c < C
    start = x + n * SN + c.to(tl.int64) * SC
    turn, bar = gate_of(gates, GATE_PLANE, n * GATE_ROW + c, channels, WIDE)
    positive = tl.zeros([BC, BP], tl.int32)
    for at in range(0, P, BP):
        where, here = tile(start, at, channels, P, SP, BP, 1)
        v = tl.load(where, mask=here, other=0).to(WIDE)
        positive += is_positive(v, here, turn, bar)
    tl.atomic_add(out + c, tl.sum(positive, 1).to(tl.float64), mask=channels, sem="relaxed")
