"""Rows into channels: power sums about one point per channel, in float64, then central moments.

Channels are taken in chunks of up to LANES. All that is known of a chunk lies on one flat array, LANES
entries for each field, so that channels become lanes of vector code: in `rows` the sums of one row per
channel, in `sums` what all rows so far came to. A piece of work has several chunks, one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu import tasks
from bnprobe.reductions.cpu.llvm import floats, njit_strict, stack
from bnprobe.reductions.cpu.terms import N_TERMS
from bnprobe.stats import fields

LANES = 64
"""Channels of a chunk, at most."""

POINT, N, S1, S2, S3, S4, LOW, HIGH, MEAN, TERM = (field * LANES for field in range(10))
"""Of a row: a point, finite values, the sums of their distances from it to the fourth power, extremes;
once it has joined the sums, the mean; and the first of N_TERMS sums of terms."""

ROWS = TERM + N_TERMS * LANES

rows_board = stack(ROWS)

NONFINITE, IMAGES, A0, B0, A, B, AA, BB, AB, ORIGIN = (ROWS + field * LANES for field in range(10))
"""Of the sums, beside the fields of a row: values that are not finite, images, the mean and mean
square of the first image, sums over images of the distances from these and of their products, and
where mean squares are taken about (NaN for the point, which is the mean of the first row)."""

SUMS = ROWS + 10 * LANES

N_OUT = len(fields.FIELDS)
"""Fields written for each channel, in the order of `stats.fields`."""

done_board = stack(N_OUT * LANES)


@njit_strict
def set_empty(task: Any, sums: Any, first: int, width: int) -> None:
    """Nothing added yet to the chunk of `width` channels from `first`."""
    sums[:SUMS] = 0.0
    for c in range(width):
        sums[LOW + c], sums[HIGH + c] = np.inf, -np.inf
        sums[ORIGIN + c] = floats(task[tasks.ORIGIN])[first + c] if task[tasks.ORIGIN] else np.nan


@njit_strict
def join(task: Any, rows: Any, sums: Any, n: int, first: int, width: int) -> None:
    """Join rows of image n, one each for `width` channels from `first`, to the sums of these channels."""
    if task[tasks.ROWS]:
        for c in range(width):
            keep_row(task, rows, c, n, first + c)
    add_rows(rows, sums, width)
    add_images(rows, sums, width)
    size = np.float64(task[tasks.P])
    for c in range(width):
        sums[NONFINITE + c] += size - rows[N + c]
        for term in range(N_TERMS):
            sums[TERM + term * LANES + c] += rows[TERM + term * LANES + c]


@njit_strict
def add_rows(rows: Any, sums: Any, width: int) -> None:
    """Add a row to each channel; one without values changes nothing.

    Moving sums from one point to another is the binomial formula, with e the distance of the points.
    """
    for c in range(width):
        n, k = rows[N + c], rows[POINT + c]
        s1, s2, s3, s4 = rows[S1 + c], rows[S2 + c], rows[S3 + c], rows[S4 + c]
        point = k if sums[N + c] == 0 else sums[POINT + c]
        e = k - point if n > 0 else 0.0
        e2 = e * e
        sums[POINT + c] = point
        sums[N + c] += n
        sums[S1 + c] += s1 + n * e
        sums[S2 + c] += s2 + 2 * e * s1 + n * e2
        sums[S3 + c] += s3 + 3 * e * s2 + 3 * e2 * s1 + n * e2 * e
        sums[S4 + c] += s4 + 4 * e * s3 + 6 * e2 * s2 + 4 * e2 * e * s1 + n * e2 * e2
        sums[LOW + c] = min(sums[LOW + c], rows[LOW + c])
        sums[HIGH + c] = max(sums[HIGH + c], rows[HIGH + c])


@njit_strict
def add_images(rows: Any, sums: Any, width: int) -> None:
    """Add each row's mean (written down as MEAN, NaN for none) and its mean square about the origin.

    Summed are their distances from the first image's, so that nothing cancels later.
    """
    for c in range(width):
        n, k = rows[N + c], rows[POINT + c]
        some = n > 0
        origin = sums[ORIGIN + c]
        origin = sums[POINT + c] if np.isnan(origin) else origin
        t = k - origin
        m1, m2 = rows[S1 + c] / max(n, 1.0), rows[S2 + c] / max(n, 1.0)
        a = t + m1
        b = m2 + t * (2 * m1 + t)
        first = some & (sums[IMAGES + c] == 0)
        a0 = a if first else sums[A0 + c]
        b0 = b if first else sums[B0 + c]
        da = a - a0 if some else 0.0
        db = b - b0 if some else 0.0
        sums[A0 + c] = a0
        sums[B0 + c] = b0
        sums[IMAGES + c] += 1.0 if some else 0.0
        sums[A + c] += da
        sums[B + c] += db
        sums[AA + c] += da * da
        sums[BB + c] += db * db
        sums[AB + c] += da * db
        rows[MEAN + c] = k + m1 if some else np.nan


@njit_strict
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


@njit_strict
def central(k: float, n: float, s1: float, s2: float, s3: float, s4: float, low: float, high: float) -> Any:
    """Mean and central sums from sums about k; all 0 for no values.

    What rounding in float32 lanes may break is put right: no sample has its mean outside its
    extremes, a variance above (high - low)^2 / 4, or a kurtosis below skewness^2 + 1.
    """
    m = s1 / max(n, 1.0)
    m2 = s2 - n * m * m
    m3 = s3 - m * (3 * s2 - 2 * n * m * m)
    m4 = s4 - m * (4 * s3 - m * (6 * s2 - 3 * n * m * m))
    # squares that no float64 holds leave infinity less infinity
    m2 = max(m2, 0.0) if m2 == m2 else np.inf
    m2 = min(m2, n * (high - low) * (high - low) / 4)
    varies = (n > 0) & (m2 > 0)
    m2 = m2 if varies else 0.0
    m3 = m3 if varies else 0.0
    least = m3 / (m2 if varies else 1.0) * m3 + m2 / max(n, 1.0) * m2
    return min(max(k + m, low), high) if n > 0 else 0.0, m2, m3, max(m4, least) if varies else 0.0


@njit_strict
def finish(sums: Any, width: int, done: Any) -> None:
    """What the sums of a chunk came to: N_OUT fields of LANES entries."""
    for c in range(width):
        point, n, low, high = sums[POINT + c], sums[N + c], sums[LOW + c], sums[HIGH + c]
        mean, m2, m3, m4 = central(
            point, n, sums[S1 + c], sums[S2 + c], sums[S3 + c], sums[S4 + c], low, high
        )
        done[fields.N * LANES + c], done[fields.MEAN * LANES + c] = n, mean
        done[fields.M2 * LANES + c], done[fields.M3 * LANES + c], done[fields.M4 * LANES + c] = m2, m3, m4
        done[fields.LOW * LANES + c], done[fields.HIGH * LANES + c] = low, high
        done[fields.NONFINITE * LANES + c] = sums[NONFINITE + c]
    for c in range(width):
        images, origin = max(sums[IMAGES + c], 1.0), sums[ORIGIN + c]
        a, b = sums[A + c], sums[B + c]
        done[fields.ORIGIN * LANES + c] = sums[POINT + c] if np.isnan(origin) else origin
        done[fields.IMAGES * LANES + c] = sums[IMAGES + c]
        done[fields.A * LANES + c] = sums[A0 + c] + a / images
        done[fields.B * LANES + c] = sums[B0 + c] + b / images
        done[fields.AA * LANES + c] = max(sums[AA + c] - a * a / images, 0.0)
        done[fields.BB * LANES + c] = max(sums[BB + c] - b * b / images, 0.0)
        done[fields.AB * LANES + c] = sums[AB + c] - a * b / images
    for term in range(N_TERMS):
        for c in range(width):
            done[(fields.FIRST_TERM + term) * LANES + c] = sums[TERM + term * LANES + c]


@njit_strict
def write(task: Any, group: int, first: int, width: int, sums: Any) -> None:
    """Write a chunk of `width` channels from `first`: N_OUT fields of shape (groups, C)."""
    done = done_board()
    finish(sums, width, done)
    for field in range(N_OUT):
        out = floats(task[tasks.OUT] + 8 * ((group * N_OUT + field) * task[tasks.C] + first))
        for c in range(width):
            out[c] = done[field * LANES + c]
