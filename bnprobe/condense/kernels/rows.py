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

from bnprobe.condense.kernels import tasks
from bnprobe.condense.kernels.channels import join
from bnprobe.condense.kernels.lanes import larger, loop, plain, real, smaller, value

BLOCK = 2048
"""Values summed in float32 lanes, 16 or more at a time, before they join a float64 sum."""

STRIDED_BLOCK = 32
"""The same where the values are not neighbours, and one float32 takes them all."""

N_PILOT = 16
"""At most so many values make the pilot; a power of two, so that a constant row has itself as pilot."""

TINY = 1e-32
"""Mean fourth power below which float32 runs out of range: deviations of about 1e-8."""


@plain
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


@loop
def block_sums(x: Any, start: int, n: int, stride: int, k: Any, turn: Any, bar: Any) -> Any:
    """Sums of (v - k) to the fourth power, both extremes, and how many have turn * v > bar."""
    s1 = s2 = s3 = s4 = real(x, 0.0)
    low, high = real(x, np.inf), real(x, -np.inf)
    positive = np.int32(0)
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
        positive = np.int32(positive + np.int32(turn * v > bar))
    return s1, s2, s3, s4, low, high, positive


@plain
def sums_about(x: Any, start: int, n: int, stride: int, k: Any, turn: Any, bar: Any) -> Any:
    """`block_sums` of a row of any length, in float64."""
    s1 = s2 = s3 = s4 = 0.0
    low, high, positive = np.inf, -np.inf, 0
    size = BLOCK if stride == 1 else STRIDED_BLOCK
    for at in range(0, n, size):
        part = block_sums(x, start + at * stride, min(size, n - at), stride, k, turn, bar)
        s1 += part[0]
        s2 += part[1]
        s3 += part[2]
        s4 += part[3]
        low = min(low, np.float64(part[4]))
        high = max(high, np.float64(part[5]))
        positive += part[6]
    return s1, s2, s3, s4, low, high, positive


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
    return not s4 < np.inf or s4 < n * TINY


@plain
def careful(x: Any, start: int, n: int, stride: int) -> Any:
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
    return k, np.float64(seen), s1, s2, s3, s4, low, high


@plain
def row_sums(x: Any, start: int, n: int, stride: int, k: Any, turn: Any, bar: Any) -> Any:
    """One row: a point, finite values, sums about the point, extremes; and how many pass the gate."""
    s1, s2, s3, s4, low, high, positive = sums_about(x, start, n, stride, k, turn, bar)
    count = np.float64(n)
    if is_far(count, s1, s2):
        k = real(x, np.float64(k) + s1 / count)
        s1, s2, s3, s4, low, high, _ = sums_about(x, start, n, stride, k, turn, bar)
    if s4 == 0.0 and low == high:
        return (low, count, 0.0, 0.0, 0.0, 0.0, low, high), positive
    if needs_care(count, s4):
        return careful(x, start, n, stride), positive
    return (np.float64(k), count, s1, s2, s3, s4, low, high), positive


@plain
def sum_rows(
    x: Any, task: Any, n: int, first: int, last: int, sums: Any, pilots: Any, turn: Any, bar: Any
) -> None:
    """The rows of image n and the channels `first` to `last`, one at a time, into `sums`.

    `pilots` holds where each channel's row of the image before had its mean; NaN before the first.
    """
    size, stride = task[tasks.P], task[tasks.SP]
    for c in range(first, last):
        i = c - first
        start = n * task[tasks.SN] + c * task[tasks.SC]
        if not np.isfinite(pilots[i]):
            pilots[i] = pilot(x, start, size, stride)
        row, positive = row_sums(x, start, size, stride, pilots[i], turn[i], bar[i])
        pilots[i] = real(x, join(task, sums, n, c, first, row, np.float64(positive)))
