"""Rows into channels: power sums about one point per channel, in float64, then central moments.

The fields of a channel's running sums are the constants below; they lie one after the other, each
for all channels of the task, so that neighbouring channels are neighbours in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.condense.kernels import tasks
from bnprobe.condense.kernels.lanes import floats, plain

POINT, N, S1, S2, S3, S4, LOW, HIGH, BAD, POSITIVE, IMAGES, A0, B0, A, B, AA, BB, AB = range(18)
N_SUMS = 18

N_OUT = 16
"""Fields that `finish` writes for each channel: `condense.packed.FIELDS`, in that order."""


@plain
def empty_sums(n_channels: int) -> Any:
    """Nothing added yet."""
    sums = np.zeros((N_SUMS, n_channels))
    sums[LOW] = np.inf
    sums[HIGH] = -np.inf
    return sums


@plain
def add_row(sums: Any, c: int, row: Any, origin: float) -> Any:
    """Add a row (k, n, s1, s2, s3, s4, low, high) to channel c; its mean. NaN for an origin yet to be chosen.

    Moving sums from one point to another is the binomial formula, with e the distance of the points.
    """
    k, n, s1, s2, s3, s4, low, high = row
    if n == 0:
        return np.nan
    if sums[N, c] == 0:
        sums[POINT, c] = k
    e = k - sums[POINT, c]
    e2 = e * e
    sums[N, c] += n
    sums[S1, c] += s1 + n * e
    sums[S2, c] += s2 + 2 * e * s1 + n * e2
    sums[S3, c] += s3 + 3 * e * s2 + 3 * e2 * s1 + n * e2 * e
    sums[S4, c] += s4 + 4 * e * s3 + 6 * e2 * s2 + 4 * e2 * e * s1 + n * e2 * e2
    sums[LOW, c] = min(sums[LOW, c], low)
    sums[HIGH, c] = max(sums[HIGH, c], high)
    m1 = s1 / n
    add_image(sums, c, k - (sums[POINT, c] if np.isnan(origin) else origin), m1, s2 / n)
    return k + m1


@plain
def origin_of(task: Any, c: int) -> Any:
    """Where an image's mean square is taken about; NaN where that is still to be chosen."""
    return floats(task[tasks.ORIGIN])[c] if task[tasks.ORIGIN] else np.nan


@plain
def join(task: Any, sums: Any, n: int, c: int, first: int, row: Any, positive: float) -> Any:
    """Join the row of image n and channel c to the sums, whose first channel is `first`; its mean."""
    sums[BAD, c - first] += task[tasks.P] - row[1]
    sums[POSITIVE, c - first] += positive
    keep_row(task, n, c, row)
    return add_row(sums, c - first, row, origin_of(task, c))


@plain
def keep_row(task: Any, n: int, c: int, row: Any) -> None:
    """Write the moments of one row, if rows are kept: 7 fields of shape (N, C)."""
    if task[tasks.ROWS] == 0:
        return
    out = floats(task[tasks.ROWS])
    size = task[tasks.N] * task[tasks.C]
    at = n * task[tasks.C] + c
    k, count, s1, s2, s3, s4, low, high = row
    mean, m2, m3, m4 = central(k, count, s1, s2, s3, s4, low, high)
    for i, field in enumerate((count, mean, m2, m3, m4, low, high)):
        out[i * size + at] = field


@plain
def add_image(sums: Any, c: int, t: float, m1: float, m2: float) -> None:
    """Add an image's mean and mean square about the origin, from those about a point t away from it.

    Summed are their distances from the first image's, so that nothing cancels later.
    """
    a = t + m1
    b = m2 + t * (2 * m1 + t)
    if sums[IMAGES, c] == 0:
        sums[A0, c] = a
        sums[B0, c] = b
    da = a - sums[A0, c]
    db = b - sums[B0, c]
    sums[IMAGES, c] += 1
    sums[A, c] += da
    sums[B, c] += db
    sums[AA, c] += da * da
    sums[BB, c] += db * db
    sums[AB, c] += da * db


@plain
def central(k: float, n: float, s1: float, s2: float, s3: float, s4: float, low: float, high: float) -> Any:
    """Mean and central sums from sums about k.

    What rounding in float32 lanes may break is put right: no sample has its mean outside its
    extremes, a variance above (high - low)^2 / 4, or a kurtosis below skewness^2 + 1.
    """
    if n == 0:
        return 0.0, 0.0, 0.0, 0.0
    m = s1 / n
    mean = min(max(k + m, low), high)
    m2 = s2 - n * m * m
    m3 = s3 - m * (3 * s2 - 2 * n * m * m)
    m4 = s4 - m * (4 * s3 - m * (6 * s2 - 3 * n * m * m))
    m2 = min(max(m2, 0.0), n * (high - low) * (high - low) / 4)
    if m2 == 0:
        return mean, 0.0, 0.0, 0.0
    return mean, m2, m3, max(m4, m3 * m3 / m2 + m2 * m2 / n)


@plain
def finish(sums: Any, c: int, out: Any, n_channels: int, at: int, origin: float) -> None:
    """Write channel c of the sums as channel `at` of the output, in the order of `condense.packed.FIELDS`."""
    n = sums[N, c]
    mean, m2, m3, m4 = central(
        sums[POINT, c], n, sums[S1, c], sums[S2, c], sums[S3, c], sums[S4, c], sums[LOW, c], sums[HIGH, c]
    )
    images = max(sums[IMAGES, c], 1.0)
    a, b = sums[A, c], sums[B, c]
    fields = (
        n,
        mean,
        m2,
        m3,
        m4,
        sums[LOW, c],
        sums[HIGH, c],
        sums[POINT, c] if np.isnan(origin) else origin,
        sums[IMAGES, c],
        sums[A0, c] + a / images,
        sums[B0, c] + b / images,
        max(sums[AA, c] - a * a / images, 0.0),
        max(sums[BB, c] - b * b / images, 0.0),
        sums[AB, c] - a * b / images,
        sums[BAD, c],
        sums[POSITIVE, c],
    )
    for i, field in enumerate(fields):
        out[i * n_channels + at] = field
