"""Values into rows: one program reads the rows of some channels of one image, once.

A row's power sums are taken about a pilot near its mean, in float32 (float64 for itself): every lane of
a tile adds its own few values, then the lanes are added up, and blocks of tiles join in float64. A tile
with a row that is not finite, or out of float32's range, is read again in float64 by `sum_exactly`.

Written per row: the point, the number of finite values, sums of (x - point)^k for k = 1 to 4, both
extremes, and the sums of `stats.fields.TERMS`; each a plane of shape (N, C). A term is written where it is
summed up: in `short_rows` and in `sums_about`, and again in `sum_exactly` where values that are not finite, or
out of float32's range, must not enter it.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from bnprobe.reductions.gpu.gates import gate_of

FLUSH = tl.constexpr(16)
"""Tiles summed in the lanes before they join a float64 sum."""

N_PILOT = tl.constexpr(32)
"""At most so many values, spread over the row, make the pilot of a row that is longer than a tile."""

TINY = tl.constexpr(1e-32)
"""Mean fourth power below which float32 runs out of range: deviations of about 1e-8."""

N_PLANES = tl.constexpr(8)
"""Planes before those of the terms."""

POSITIVE = tl.constexpr(0)
"""Numbers of the terms, in the order of `stats.fields.TERMS`."""


@triton.jit
def tile(
    start: tl.tensor,
    at: tl.tensor,
    channels: tl.tensor,
    P: tl.tensor,
    SP: tl.tensor,
    SIZE: tl.constexpr,
    STEP: tl.tensor,
) -> Any:
    """Pointers to SIZE positions of each row, STEP apart, and which of them there are."""
    p = at + tl.arange(0, SIZE) * STEP
    return start[:, None] + p[None, :].to(tl.int64) * SP, channels[:, None] & (p < P)[None, :]


@triton.jit
def mean_of(v: tl.tensor, here: tl.tensor, channels: tl.tensor, n: tl.tensor) -> Any:
    """The mean of the `n` values of each row of a tile, and not outside them: a constant row has itself."""
    low = tl.min(tl.where(here, v, float("inf")), 1)
    high = tl.max(tl.where(here, v, float("-inf")), 1)
    k = tl.sum(tl.where(here, v, 0.0), 1) / n
    return tl.where(channels, tl.minimum(tl.maximum(k, low), high), 0.0)


@triton.jit
def is_positive(v: tl.tensor, here: tl.tensor, turn: tl.tensor, bar: tl.tensor) -> Any:
    """1 where a value is there and its gate is positive."""
    return (here & (turn[:, None] * v > bar[:, None])).to(tl.int32)


@triton.jit
def sums_of_tile(v: tl.tensor, k: tl.tensor) -> Any:
    """Sums of (v - k) to the fourth power of rows that fit in one tile."""
    d = v - k[:, None]
    q = d * d
    return tl.sum(d, 1), tl.sum(q, 1), tl.sum(q * d, 1), tl.sum(q * q, 1)


@triton.jit
def write_term(at: tl.tensor, plane: tl.tensor, number: tl.constexpr, ok: tl.tensor, sum_: tl.tensor) -> None:
    """Write the sum of a term, by its number in `stats.fields.TERMS`, of some rows."""
    tl.store(at + plane * (number + N_PLANES), sum_.to(tl.float64), mask=ok)


@triton.jit
def short_rows(
    start: tl.tensor,
    at: tl.tensor,
    plane: tl.tensor,
    channels: tl.tensor,
    turn: tl.tensor,
    bar: tl.tensor,
    P: tl.tensor,
    SP: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
    WIDE: tl.constexpr,
) -> Any:
    """Rows of at most BP values: a point, sums about it, and extremes; terms go to `at`."""
    where, here = tile(start, 0, channels, P, SP, BP, 1)
    v = tl.load(where, mask=here, other=0).to(WIDE)
    n = tl.full([BC], P, WIDE)
    k = mean_of(v, here, channels, n)
    # the point in place of what is not there: it adds nothing, and lies between the extremes
    v = tl.where(here, v, k[:, None])
    s1, s2, s3, s4 = sums_of_tile(v, k)
    far = is_far(n, s1, s2)
    if tl.max(far.to(tl.int32), 0) > 0:
        k = tl.where(far, k + s1 / n, k)
        s1, s2, s3, s4 = sums_of_tile(tl.where(here, v, k[:, None]), k)
    write_term(at, plane, POSITIVE, channels, tl.sum(is_positive(v, here, turn, bar), 1))
    return k, s1, s2, s3, s4, tl.min(v, 1), tl.max(v, 1)


@triton.jit
def is_far(n: tl.tensor, s1: tl.tensor, s2: tl.tensor) -> Any:
    """As `cpu.fallback.is_far`: up to 1.4 standard deviations from the mean float32 has digits to spare."""
    return 1.5 * s1 * s1 > n * s2


@triton.jit
def sums_about(
    start: tl.tensor,
    at: tl.tensor,
    plane: tl.tensor,
    channels: tl.tensor,
    k: tl.tensor,
    turn: tl.tensor,
    bar: tl.tensor,
    P: tl.tensor,
    SP: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
    WIDE: tl.constexpr,
) -> Any:
    """Sums of (v - k) to the fourth power, and both extremes, of rows of any length; terms go to `at`."""
    s1 = tl.zeros([BC], tl.float64)
    s2 = tl.zeros([BC], tl.float64)
    s3 = tl.zeros([BC], tl.float64)
    s4 = tl.zeros([BC], tl.float64)
    positive = tl.zeros([BC], tl.int32)
    low = tl.full([BC, BP], float("inf"), WIDE)
    high = tl.full([BC, BP], float("-inf"), WIDE)
    for first in range(0, P, BP * FLUSH):
        l1 = tl.zeros([BC, BP], WIDE)
        l2 = tl.zeros([BC, BP], WIDE)
        l3 = tl.zeros([BC, BP], WIDE)
        l4 = tl.zeros([BC, BP], WIDE)
        lane_positive = tl.zeros([BC, BP], tl.int32)
        for p in tl.range(first, tl.minimum(first + BP * FLUSH, P), BP, loop_unroll_factor=4):
            where, here = tile(start, p, channels, P, SP, BP, 1)
            # unrolled, so that several tiles are on their way at a time
            v = tl.where(here, tl.load(where, mask=here, other=0).to(WIDE), k[:, None])
            d = v - k[:, None]
            q = d * d
            l1 += d
            l2 += q
            l3 += q * d
            l4 += q * q
            low = tl.minimum(low, v)
            high = tl.maximum(high, v)
            lane_positive += is_positive(v, here, turn, bar)
        s1 += tl.sum(l1, 1).to(tl.float64)
        s2 += tl.sum(l2, 1).to(tl.float64)
        s3 += tl.sum(l3, 1).to(tl.float64)
        s4 += tl.sum(l4, 1).to(tl.float64)
        positive += tl.sum(lane_positive, 1)
    write_term(at, plane, POSITIVE, channels, positive)
    return s1, s2, s3, s4, tl.min(low, 1), tl.max(high, 1)


@triton.jit
def long_rows(
    start: tl.tensor,
    at: tl.tensor,
    plane: tl.tensor,
    channels: tl.tensor,
    turn: tl.tensor,
    bar: tl.tensor,
    P: tl.tensor,
    SP: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
    WIDE: tl.constexpr,
) -> Any:
    """As `short_rows`, of any length: the pilot is the mean of a few values spread over the row."""
    where, here = tile(start, 0, channels, P, SP, N_PILOT, tl.maximum(P // N_PILOT, 1))
    some = tl.full([BC], tl.minimum(P, N_PILOT), WIDE)
    k = mean_of(tl.load(where, mask=here, other=0).to(WIDE), here, channels, some)
    s1, s2, s3, s4, low, high = sums_about(start, at, plane, channels, k, turn, bar, P, SP, BC, BP, WIDE)
    far = is_far(tl.full([BC], P, tl.float64), s1, s2)
    if tl.max(far.to(tl.int32), 0) > 0:
        k = tl.where(far, (k.to(tl.float64) + s1 / P).to(WIDE), k)
        s1, s2, s3, s4, _, _ = sums_about(start, at, plane, channels, k, turn, bar, P, SP, BC, BP, WIDE)
    return k, s1, s2, s3, s4, low, high


@triton.jit
def finite_tile(
    start: tl.tensor, at: tl.tensor, channels: tl.tensor, P: tl.tensor, SP: tl.tensor, SIZE: tl.constexpr
) -> Any:
    """Values of each row in float64, and which of them are there and finite."""
    where, here = tile(start, at, channels, P, SP, SIZE, 1)
    v = tl.load(where, mask=here, other=0).to(tl.float64)
    return v, here & (tl.abs(v) < float("inf"))


@triton.jit
def sum_exactly(
    start: tl.tensor,
    channels: tl.tensor,
    P: tl.tensor,
    SP: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
) -> Any:
    """Rows in float64, finite values only: the mean, how many, sums about the mean, extremes.

    Each tile is added up at once: what is rare must not take registers from what is not.
    """
    n = tl.zeros([BC], tl.float64)
    total = tl.zeros([BC], tl.float64)
    low = tl.full([BC], float("inf"), tl.float64)
    high = tl.full([BC], float("-inf"), tl.float64)
    for p in range(0, P, BP):
        v, seen = finite_tile(start, p, channels, P, SP, BP)
        n += tl.sum(seen.to(tl.int32), 1).to(tl.float64)
        total += tl.sum(tl.where(seen, v, 0.0), 1)
        low = tl.minimum(low, tl.min(tl.where(seen, v, float("inf")), 1))
        high = tl.maximum(high, tl.max(tl.where(seen, v, float("-inf")), 1))
    k = tl.minimum(tl.maximum(total / tl.maximum(n, 1.0), low), high)
    k = tl.where(n > 0, k, 0.0)
    s1 = tl.zeros([BC], tl.float64)
    s2 = tl.zeros([BC], tl.float64)
    s3 = tl.zeros([BC], tl.float64)
    s4 = tl.zeros([BC], tl.float64)
    for p in range(0, P, BP):
        v, seen = finite_tile(start, p, channels, P, SP, BP)
        d = tl.where(seen, v - k[:, None], 0.0)
        s1 += tl.sum(d, 1)
        s2 += tl.sum(d * d, 1)
        s3 += tl.sum(d * d * d, 1)
        s4 += tl.sum(d * d * (d * d), 1)
    return k, n, s1, s2, s3, s4, low, high


@triton.jit
def write(
    at: tl.tensor,
    plane: tl.tensor,
    ok: tl.tensor,
    point: tl.tensor,
    n: tl.tensor,
    s1: tl.tensor,
    s2: tl.tensor,
    s3: tl.tensor,
    s4: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
) -> None:
    """Write the first eight planes of some rows."""
    tl.store(at, point.to(tl.float64), mask=ok)
    tl.store(at + plane, n.to(tl.float64), mask=ok)
    tl.store(at + 2 * plane, s1.to(tl.float64), mask=ok)
    tl.store(at + 3 * plane, s2.to(tl.float64), mask=ok)
    tl.store(at + 4 * plane, s3.to(tl.float64), mask=ok)
    tl.store(at + 5 * plane, s4.to(tl.float64), mask=ok)
    tl.store(at + 6 * plane, low.to(tl.float64), mask=ok)
    tl.store(at + 7 * plane, high.to(tl.float64), mask=ok)


@triton.jit(do_not_specialize=["GATE_PLANE", "GATE_ROW"])
def sum_rows(
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
    PLANE: tl.tensor,
    BC: tl.constexpr,
    BP: tl.constexpr,
    SHORT: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """The rows of BC channels of one image. SHORT: a row fits in one tile, whose own mean is the pilot.

    Grid: images times tiles of channels. `gates` holds the maps of the gate (see `gates.map_at`), those of
    the next image GATE_ROW further; None counts nothing. `out` holds the planes, PLANE apart.
    """
    tiles = tl.cdiv(C, BC)
    n = (tl.program_id(0) // tiles).to(tl.int64)
    c = tl.program_id(0) % tiles * BC + tl.arange(0, BC)
    channels = c < C
    start = x + n * SN + c.to(tl.int64) * SC
    at = out + n * C + c
    turn = tl.full([BC], 1.0, WIDE)
    bar = tl.full([BC], float("inf"), WIDE)
    if gates is not None:
        turn, bar = gate_of(gates, GATE_PLANE, n * GATE_ROW + c, channels, WIDE)
    if SHORT:
        k, s1, s2, s3, s4, low, high = short_rows(start, at, PLANE, channels, turn, bar, P, SP, BC, BP, WIDE)
    else:
        k, s1, s2, s3, s4, low, high = long_rows(start, at, PLANE, channels, turn, bar, P, SP, BC, BP, WIDE)
    size = tl.full([BC], P, WIDE)
    flat = (s4 == 0) & (low == high)
    again = channels & ~flat & ~((s4 >= size * TINY) & (s4 < float("inf")))
    point = tl.where(flat, low, k)
    s1, s2, s3 = tl.where(flat, 0.0, s1), tl.where(flat, 0.0, s2), tl.where(flat, 0.0, s3)
    write(at, PLANE, channels & ~again, point, size, s1, s2, s3, s4, low, high)
    if tl.max(again.to(tl.int32), 0) > 0:
        mean, seen, p1, p2, p3, p4, least, most = sum_exactly(start, channels, P, SP, BC, BP)
        write(at, PLANE, again, mean, seen, p1, p2, p3, p4, least, most)
