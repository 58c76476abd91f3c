"""Rows whose fast sums will not do: which they are, and how they are summed with all care."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.condense.kernels.channels import HIGH, LOW, POINT, S1, S2, S3, S4, N
from bnprobe.condense.kernels.lanes import plain, value

TINY = 1e-32
"""Mean fourth power below which float32 runs out of range: deviations of about 1e-8."""


@plain
def is_far(n: float, s1: float, s2: float) -> bool:
    """Whether the mean is further than 1.4 standard deviations from the pilot.

    m^2 > 2 var with m = s1 / n and var = s2 / n - m^2. Up to there the fourth powers about the pilot
    are some 20 times those about the mean, and float32 has that many digits to spare.
    """
    return 1.5 * s1 * s1 > n * s2


@plain
def needs_care(n: float, s4: float) -> bool:
    """Whether sums are not finite, or so small that float32 may have run out of range (or constant)."""
    return (not s4 < np.inf) | (s4 < n * TINY)


@plain
def n_unusual(rows: Any, width: int) -> Any:
    """How many rows of a chunk have to be looked at again."""
    found = np.int64(0)
    for c in range(width):
        n = rows[N + c]
        found += np.int64(is_far(n, rows[S1 + c], rows[S2 + c]) | needs_care(n, rows[S4 + c]))
    return found


@plain
def careful(x: Any, start: int, n: int, stride: int, rows: Any, c: int) -> None:
    """A row in float64, finite values only: the mean, how many, sums about the mean, extremes."""
    low, high = np.inf, -np.inf
    k, seen = 0.0, 0
    for i in range(n):
        v = np.float64(value(x, start + i * stride))
        if np.isfinite(v):
            seen += 1
            low, high = min(low, v), max(high, v)
            k = low if low == high else k + (v - k) / seen
    s1 = s2 = s3 = s4 = 0.0
    for i in range(n):
        v = np.float64(value(x, start + i * stride))
        if np.isfinite(v):
            d = v - k
            d2 = d * d
            s1 += d
            s2 += d2
            s3 += d2 * d
            s4 += d2 * d2
    rows[POINT + c], rows[N + c] = k, np.float64(seen)
    rows[S1 + c], rows[S2 + c], rows[S3 + c], rows[S4 + c] = s1, s2, s3, s4
    rows[LOW + c], rows[HIGH + c] = low, high


@plain
def is_constant(rows: Any, c: int) -> bool:
    """Whether a row has one value only, which then is its point."""
    if rows[S4 + c] == 0.0 and rows[LOW + c] == rows[HIGH + c]:
        rows[POINT + c] = rows[LOW + c]
        rows[S1 + c] = rows[S2 + c] = rows[S3 + c] = 0.0
        return True
    return False
