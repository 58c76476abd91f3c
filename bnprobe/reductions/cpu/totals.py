"""Adding one packed reading to another, in place: see `reductions.packing`.

The pairwise formulas of Chan, Golub & LeVeque 1983 and Pebay 2008 (SAND2008-6212), branch-free so that
channels become lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.reductions.cpu.llvm import floats, njit_strict
from bnprobe.stats.fields import (
    AA,
    AB,
    BB,
    FIELDS,
    HIGH,
    IMAGES,
    LOW,
    M2,
    M3,
    M4,
    MEAN,
    NONFINITE,
    ORIGIN,
    A,
    B,
    N,
)

N_FIELDS = len(FIELDS)


@njit_strict
def add_moments(total: Any, new: Any, size: int, c: int) -> None:
    """Moments of channel c; an empty side changes nothing."""
    n1, n2 = total[N * size + c], new[N * size + c]
    n = n1 + n2
    share = n2 / max(n, 1.0)
    d = new[MEAN * size + c] - total[MEAN * size + c]
    e, d2 = d * (1.0 - share), d * d  # the first part lies -d share from the common mean, the second e
    f = d * share
    p2, q2 = total[M2 * size + c], new[M2 * size + c]
    p3, q3 = total[M3 * size + c], new[M3 * size + c]
    both = n1 * share
    total[N * size + c] = n
    total[MEAN * size + c] += f
    total[M2 * size + c] = p2 + q2 + d2 * both
    total[M3 * size + c] = p3 + q3 + 3 * (e * q2 - f * p2) + d2 * both * (e - f)
    total[M4 * size + c] += (
        new[M4 * size + c]
        + 4 * (e * q3 - f * p3)
        + 6 * (e * e * q2 + f * f * p2)
        + d2 * both * (e * e - e * f + f * f)
    )
    total[LOW * size + c] = min(total[LOW * size + c], new[LOW * size + c])
    total[HIGH * size + c] = max(total[HIGH * size + c], new[HIGH * size + c])


@njit_strict
def add_images(total: Any, new: Any, size: int, c: int) -> None:
    """Image moments of channel c, about the origin of the total: see `ImageMoments.about` and `merge`."""
    n1, n2 = total[IMAGES * size + c], new[IMAGES * size + c]
    share = n2 / max(n1 + n2, 1.0)
    both = n1 * share
    t = total[ORIGIN * size + c] - new[ORIGIN * size + c]
    a, aa, ab = new[A * size + c], new[AA * size + c], new[AB * size + c]
    b = new[B * size + c] - 2 * t * a + t * t
    bb = max(new[BB * size + c] - 4 * t * ab + 4 * t * t * aa, 0.0)
    da = (a - t) - total[A * size + c]
    db = b - total[B * size + c]
    total[IMAGES * size + c] = n1 + n2
    total[A * size + c] += da * share
    total[B * size + c] += db * share
    total[AA * size + c] += aa + da * da * both
    total[BB * size + c] += bb + db * db * both
    total[AB * size + c] += ab - 2 * t * aa + da * db * both


@njit_strict
def add_totals(to: int, other: int, size: int) -> None:
    """Add all channels of the packed reading at address `other` to the one at `to`."""
    total, new = floats(to), floats(other)
    for c in range(size):
        add_moments(total, new, size, c)
        add_images(total, new, size, c)
    for entry in range(NONFINITE * size, N_FIELDS * size):
        total[entry] += new[entry]


@njit_strict
def mapped(other: int, size: int, maps: Any) -> Any:
    """The affine image of the packed reading at address `other`: see `Moments.affine`.

    Where the map is not finite nothing finite comes out. The images, and terms, are not known.
    """
    new = floats(other)
    out = np.zeros(N_FIELDS * size)
    for c in range(size):
        o, a, b = maps[0][c], maps[1][c], maps[2][c]
        n = new[N * size + c]
        out[LOW * size + c] = np.inf
        out[HIGH * size + c] = -np.inf
        if n == 0 or not (np.isfinite(o) and np.isfinite(a) and np.isfinite(b)):
            out[NONFINITE * size + c] = n + new[NONFINITE * size + c]
            continue
        out[N * size + c] = n
        out[MEAN * size + c] = a * (new[MEAN * size + c] - o) + b
        out[M2 * size + c] = a * a * new[M2 * size + c]
        out[M3 * size + c] = a * a * a * new[M3 * size + c]
        out[M4 * size + c] = a * a * a * a * new[M4 * size + c]
        one, other_end = a * (new[LOW * size + c] - o) + b, a * (new[HIGH * size + c] - o) + b
        out[LOW * size + c] = min(one, other_end)
        out[HIGH * size + c] = max(one, other_end)
        out[NONFINITE * size + c] = new[NONFINITE * size + c]
    return out


@njit_strict
def add_mapped_totals(to: int, other: int, size: int, maps: Any) -> None:
    """Add the affine image of the packed reading at address `other` to the one at `to`, moments and non-finite values."""
    total, new = floats(to), mapped(other, size, maps)
    for c in range(size):
        add_moments(total, new, size, c)
        total[NONFINITE * size + c] += new[NONFINITE * size + c]
