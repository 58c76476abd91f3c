"""Rows into channels: power sums about one point per channel, in float64, then central moments.

Channels are taken in chunks of up to LANES. All that is known of a chunk lies on one flat array, LANES
entries for each field, so that channels become lanes of vector code: in `rows` the sums of one row per
channel, in `sums` what all rows so far came to. A piece of work has several chunks, one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.condense.kernels import tasks
from bnprobe.condense.kernels.lanes import floats, plain

LANES = 64
"""Channels of a chunk, at most."""

POINT, N, S1, S2, S3, S4, LOW, HIGH, PASSED, MEAN = (field * LANES for field in range(10))
"""Of a row: a point, finite values, the sums of their distances from it to the fourth power, extremes,
how many pass the gate; and, once it has joined the sums, the mean."""

ROWS = 10 * LANES

BAD, IMAGES, A0, B0, A, B, AA, BB, AB, ORIGIN = (field * LANES for field in range(9, 19))
"""Of the sums, beside the fields up to PASSED: values that are not finite, images, the mean and mean
square of the first image, sums over images of the distances from these and of their products, and
where mean squares are taken about (NaN for the point, which is the mean of the first row)."""

SUMS = 19 * LANES

N_OUT = 16
"""Fields that `finish` writes for each channel: `condense.packed.FIELDS`, in that order."""


@plain
def empty_sums(task: Any, first: int, last: int, wide: int) -> Any:
    """Nothing added yet, for the channels `first` to `last` in chunks of `wide`."""
    sums = np.zeros(-(-(last - first) // wide) * SUMS)
    for c in range(first, last):
        at = (c - first) // wide * SUMS + (c - first) % wide
        sums[at + LOW], sums[at + HIGH] = np.inf, -np.inf
        sums[at + ORIGIN] = floats(task[tasks.ORIGIN])[c] if task[tasks.ORIGIN] else np.nan
    return sums


@plain
def join(task: Any, rows: Any, sums: Any, at: int, n: int, first: int, width: int) -> None:
    """Join rows of image n, one each for `width` channels from `first`, to the sums that start at `at`."""
    if task[tasks.ROWS]:
        for c in range(width):
            keep_row(task, rows, c, n, first + c)
    add_rows(rows, sums, at, width)
    add_images(rows, sums, at, width)
    size = np.float64(task[tasks.P])
    for c in range(width):
        sums[at + BAD + c] += size - rows[N + c]
        sums[at + PASSED + c] += rows[PASSED + c]


@plain
def add_rows(rows: Any, sums: Any, at: int, width: int) -> None:
    """Add a row to each channel; one without values changes nothing.

    Moving sums from one point to another is the binomial formula, with e the distance of the points.
    """
    for c in range(width):
        n, k = rows[N + c], rows[POINT + c]
        s1, s2, s3, s4 = rows[S1 + c], rows[S2 + c], rows[S3 + c], rows[S4 + c]
        point = k if sums[at + N + c] == 0 else sums[at + POINT + c]
        e = k - point if n > 0 else 0.0
        e2 = e * e
        sums[at + POINT + c] = point
        sums[at + N + c] += n
        sums[at + S1 + c] += s1 + n * e
        sums[at + S2 + c] += s2 + 2 * e * s1 + n * e2
        sums[at + S3 + c] += s3 + 3 * e * s2 + 3 * e2 * s1 + n * e2 * e
        sums[at + S4 + c] += s4 + 4 * e * s3 + 6 * e2 * s2 + 4 * e2 * e * s1 + n * e2 * e2
        sums[at + LOW + c] = min(sums[at + LOW + c], rows[LOW + c])
        sums[at + HIGH + c] = max(sums[at + HIGH + c], rows[HIGH + c])


@plain
def add_images(rows: Any, sums: Any, at: int, width: int) -> None:
    """Add each row's mean (written down as MEAN, NaN for none) and its mean square about the origin.

    Summed are their distances from the first image's, so that nothing cancels later.
    """
    for c in range(width):
        n, k = rows[N + c], rows[POINT + c]
        some = n > 0
        origin = sums[at + ORIGIN + c]
        origin = sums[at + POINT + c] if np.isnan(origin) else origin
        t = k - origin
        m1, m2 = rows[S1 + c] / max(n, 1.0), rows[S2 + c] / max(n, 1.0)
        a = t + m1
        b = m2 + t * (2 * m1 + t)
        first = some & (sums[at + IMAGES + c] == 0)
        a0 = a if first else sums[at + A0 + c]
        b0 = b if first else sums[at + B0 + c]
        da = a - a0 if some else 0.0
        db = b - b0 if some else 0.0
        sums[at + A0 + c] = a0
        sums[at + B0 + c] = b0
        sums[at + IMAGES + c] += 1.0 if some else 0.0
        sums[at + A + c] += da
        sums[at + B + c] += db
        sums[at + AA + c] += da * da
        sums[at + BB + c] += db * db
        sums[at + AB + c] += da * db
        rows[MEAN + c] = k + m1 if some else np.nan


@plain
def keep_row(task: Any, rows: Any, i: int, n: int, c: int) -> None:
    """Write the moments of one row, the i-th of its chunk: 7 fields of shape (N, C)."""
    out = floats(task[tasks.ROWS])
    size = task[tasks.N] * task[tasks.C]
    at = n * task[tasks.C] + c
    count, low, high = rows[N + i], rows[LOW + i], rows[HIGH + i]
    mean, m2, m3, m4 = central(
        rows[POINT + i], count, rows[S1 + i], rows[S2 + i], rows[S3 + i], rows[S4 + i], low, high
    )
    for f, field in enumerate((count, mean, m2, m3, m4, low, high)):
        out[f * size + at] = field


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
def finish(sums: Any, c: int, out: Any, n_channels: int, at: int) -> None:
    """Write the channel whose sums stand from entry c as channel `at` of the output.

    In the order of `condense.packed.FIELDS`.
    """
    n = sums[c + N]
    mean, m2, m3, m4 = central(
        sums[c + POINT], n, sums[c + S1], sums[c + S2], sums[c + S3], sums[c + S4], sums[c + LOW], sums[c + HIGH]
    )
    images = max(sums[c + IMAGES], 1.0)
    a, b = sums[c + A], sums[c + B]
    fields = (
        n,
        mean,
        m2,
        m3,
        m4,
        sums[c + LOW],
        sums[c + HIGH],
        sums[c + POINT] if np.isnan(sums[c + ORIGIN]) else sums[c + ORIGIN],
        sums[c + IMAGES],
        sums[c + A0] + a / images,
        sums[c + B0] + b / images,
        max(sums[c + AA] - a * a / images, 0.0),
        max(sums[c + BB] - b * b / images, 0.0),
        sums[c + AB] - a * b / images,
        sums[c + BAD],
        sums[c + PASSED],
    )
    for i, field in enumerate(fields):
        out[i * n_channels + at] = field
