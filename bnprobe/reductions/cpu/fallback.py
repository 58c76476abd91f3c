"""Rows whose fast sums will not do: which they are, and how they are summed instead."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu.channels import HIGH, LANES, LOW, POINT, S1, S2, S3, S4, TERM, N
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

TINY = 1e-32
"""Mean fourth power below which float32 runs out of range: deviations of about 1e-8."""

LEAST_WIDTH = 1e-36
"""Distance of the extremes of a row below which its inverse is out of float32's range, or nearly."""

BLOCK = 2048
"""Values summed in float32 lanes, 16 or more at a time, before they join a float64 sum."""

STRIDED_BLOCK = 32
"""The same where the values are not neighbors, and one float32 takes them all."""


@njit_strict
def is_far(n: float, s1: float, s2: float) -> bool:
    """Whether the mean is further than 1.4 standard deviations from the pilot.

    m^2 > 2 var with m = s1 / n and var = s2 / n - m^2. Up to there the fourth powers about the pilot
    are some 20 times those about the mean, and float32 has that many digits to spare.
    """
    return 1.5 * s1 * s1 > n * s2


@njit_strict
def needs_care(n: float, s4: float) -> bool:
    """Whether sums are not finite, or so small that float32 may have run out of range (or constant)."""
    return (not s4 < np.inf) | (s4 < n * TINY)


@njit_strict
def n_unusual(rows: Any, width: int) -> Any:
    """How many rows of a chunk have to be looked at again."""
    found = np.int64(0)
    for c in range(width):
        n = rows[N + c]
        found += np.int64(is_far(n, rows[S1 + c], rows[S2 + c]) | needs_care(n, rows[S4 + c]))
    return found


@njit_fast
def finite_part(x: Any, start: int, n: int, stride: int) -> Any:
    """The mean of a row's finite values times their share of it, how many they are, and their extremes."""
    low, high = np.inf, -np.inf
    total, seen, part = 0.0, np.int64(0), 1.0 / n
    for i in range(n):
        v = np.float64(value(x, start + i * stride))
        fine = abs(v) < np.inf
        seen += np.int64(fine)
        total += (v if fine else 0.0) * part  # not divided at the end: the sum may have no float64
        low = smaller(low, v if fine else np.inf)
        high = larger(high, v if fine else -np.inf)
    return total, seen, low, high


@njit_fast
def finite_powers(x: Any, start: int, n: int, stride: int, k: float) -> Any:
    """Sums of (v - k) to the fourth power over a row's finite values."""
    s1 = s2 = s3 = s4 = 0.0
    for i in range(n):
        v = np.float64(value(x, start + i * stride))
        d = v - k if abs(v) < np.inf else 0.0
        d2 = d * d
        s1 += d
        s2 += d2
        s3 += d2 * d
        s4 += d2 * d2
    return s1, s2, s3, s4


@njit_fast
def exact_terms(x: Any, start: int, n: int, stride: int, turn: float, bar: float) -> Any:
    """Sums of `terms` in float64."""
    more = nothing(terms(0.0, True, turn, bar))
    for i in range(n):
        v = np.float64(value(x, start + i * stride))
        more = plus(more, terms(v, abs(v) < np.inf, turn, bar))
    return more


@njit_strict
def sum_exactly(x: Any, start: int, n: int, stride: int, turn: Any, bar: Any, rows: Any, c: int) -> None:
    """A row in float64, finite values only, in two walks: first the mean, then the sums about it."""
    total, seen, low, high = finite_part(x, start, n, stride)
    k = total * (n / max(seen, 1))
    if low == high:
        k = low  # of a constant nothing is left over
    rows[POINT + c], rows[N + c] = k, np.float64(seen)
    rows[S1 + c], rows[S2 + c], rows[S3 + c], rows[S4 + c] = finite_powers(x, start, n, stride, k)
    rows[LOW + c], rows[HIGH + c] = low, high
    for term in range(N_TERMS):
        rows[TERM + term * LANES + c] = 0.0
    add_terms(rows, TERM + c, LANES, exact_terms(x, start, n, stride, np.float64(turn), np.float64(bar)))


@njit_fast
def enlarged_sums(x: Any, start: int, n: int, stride: int, k: Any, scale: Any) -> Any:
    """Sums of (scale (v - k)) to the fourth power."""
    s1 = s2 = s3 = s4 = real(x, 0.0)
    for i in range(n):
        d = (value(x, start + i * stride) - k) * scale
        d2 = d * d
        s1 += d
        s2 += d2
        s3 += d2 * d
        s4 += d2 * d2
    return s1, s2, s3, s4


@njit_strict
def enlarged(x: Any, start: int, n: int, stride: int, rows: Any, c: int) -> None:
    """A row of small values again, about its point, in units of its width: powers of those are in range."""
    width = rows[HIGH + c] - rows[LOW + c]
    k, scale = real(x, rows[POINT + c]), real(x, 1.0 / width)
    s1 = s2 = s3 = s4 = 0.0
    block = BLOCK if stride == 1 else STRIDED_BLOCK
    for at in range(0, n, block):
        p1, p2, p3, p4 = enlarged_sums(x, start + at * stride, min(block, n - at), stride, k, scale)
        s1, s2, s3, s4 = s1 + p1, s2 + p2, s3 + p3, s4 + p4
    unit = 1.0 / np.float64(scale)
    rows[S1 + c], rows[S2 + c] = s1 * unit, s2 * unit * unit
    rows[S3 + c], rows[S4 + c] = s3 * unit * unit * unit, s4 * unit * unit * unit * unit


@njit_strict
def look_again(x: Any, start: int, n: int, stride: int, turn: Any, bar: Any, rows: Any, c: int) -> None:
    """A row that needs a fallback, but not another point: enlarged where it is only small, else in float64."""
    if rows[S4 + c] < np.inf and rows[HIGH + c] - rows[LOW + c] > LEAST_WIDTH:
        enlarged(x, start, n, stride, rows, c)
    else:
        sum_exactly(x, start, n, stride, turn, bar, rows, c)


@njit_strict
def is_constant(rows: Any, c: int) -> bool:
    """Whether a row has one value only, which then is its point."""
    if rows[S4 + c] == 0.0 and rows[LOW + c] == rows[HIGH + c]:
        rows[POINT + c] = rows[LOW + c]
        rows[S1 + c] = rows[S2 + c] = rows[S3 + c] = 0.0
        return True
    return False
