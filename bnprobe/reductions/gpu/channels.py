"""Rows into channels: what `cpu.channels` does row by row, here for all rows of some channels at once.

A program takes BC channels and walks over the rows of all images, BN at a time, three times: for the
mean, for the sums about it, and for the spread of images. The rows are few and lie in the cache.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def central(
    k: tl.tensor,
    n: tl.tensor,
    s1: tl.tensor,
    s2: tl.tensor,
    s3: tl.tensor,
    s4: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
) -> Any:
    """Mean and central sums from sums about k, within the bounds that every sample obeys.

    As `cpu.channels.central`: what rounding in float32 may break is put right.
    """
    m = s1 / tl.maximum(n, 1.0)
    some = n > 0
    mean = tl.where(some, tl.minimum(tl.maximum(k + m, low), high), 0.0)
    width = tl.where(some, high - low, 0.0)
    m2 = tl.minimum(tl.maximum(s2 - n * m * m, 0.0), n * width * width / 4)
    spread = m2 > 0
    m3 = tl.where(spread, s3 - m * (3 * s2 - 2 * n * m * m), 0.0)
    m4 = s4 - m * (4 * s3 - m * (6 * s2 - 3 * n * m * m))
    pearson = m3 / tl.where(spread, m2, 1.0) * m3 + m2 / tl.maximum(n, 1.0) * m2
    return mean, m2, m3, tl.where(spread, tl.maximum(m4, pearson), 0.0)


@triton.jit
def part(first: tl.tensor, c: tl.tensor, N: tl.tensor, C: tl.tensor, BN: tl.constexpr) -> Any:
    """Where in a plane the next BN rows lie, and which of them there are."""
    n = first + tl.arange(0, BN)
    return n[:, None].to(tl.int64) * C + c[None, :], (n < N)[:, None] & (c < C)[None, :]


@triton.jit
def images_of(where: tl.tensor, here: tl.tensor, plane: tl.tensor, about: tl.tensor) -> Any:
    """Of each row: whether it has a value, its mean less `about`, and its mean square about that."""
    k = tl.load(where, mask=here, other=0.0)
    n = tl.load(where + plane, mask=here, other=0.0)
    m1 = tl.load(where + 2 * plane, mask=here, other=0.0) / tl.maximum(n, 1.0)
    m2 = tl.load(where + 3 * plane, mask=here, other=0.0) / tl.maximum(n, 1.0)
    t = k - about[None, :]
    return n > 0, t + m1, m2 + t * (2 * m1 + t)


@triton.jit
def keep(to: tl.tensor, where: tl.tensor, here: tl.tensor, plane: tl.tensor) -> None:
    """Write the moments of rows: seven planes, as the fields of `stats.Moments`."""
    k = tl.load(where, mask=here, other=0.0)
    n = tl.load(where + plane, mask=here, other=0.0)
    s1 = tl.load(where + 2 * plane, mask=here, other=0.0)
    s2 = tl.load(where + 3 * plane, mask=here, other=0.0)
    s3 = tl.load(where + 4 * plane, mask=here, other=0.0)
    s4 = tl.load(where + 5 * plane, mask=here, other=0.0)
    low = tl.load(where + 6 * plane, mask=here, other=0.0)
    high = tl.load(where + 7 * plane, mask=here, other=0.0)
    mean, m2, m3, m4 = central(k, n, s1, s2, s3, s4, low, high)
    tl.store(to, n, mask=here)
    tl.store(to + plane, mean, mask=here)
    tl.store(to + 2 * plane, m2, mask=here)
    tl.store(to + 3 * plane, m3, mask=here)
    tl.store(to + 4 * plane, m4, mask=here)
    tl.store(to + 5 * plane, low, mask=here)
    tl.store(to + 6 * plane, high, mask=here)


@triton.jit(do_not_specialize=["N", "P", "C", "PLANE"])
def join_rows(
    rows: tl.tensor,
    out: tl.tensor,
    kept: tl.tensor,
    origins: tl.tensor,
    N: tl.tensor,
    C: tl.tensor,
    P: tl.tensor,
    PLANE: tl.tensor,
    N_TERMS: tl.constexpr,
    LONE: tl.constexpr,
    BN: tl.constexpr,
    BC: tl.constexpr,
) -> None:
    """Channels from rows of P values, in the order of `stats.fields`; grid: tiles of channels.

    Mean squares of images are taken about `origins`, shape (C,), or where it is None about the channel's
    mean. LONE: each value of the one row is an image of its own. `kept` takes the moments of rows, or is None.
    """
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    channels = c < C
    count = tl.zeros([BN, BC], tl.float64)
    total = tl.zeros([BN, BC], tl.float64)
    low = tl.full([BN, BC], float("inf"), tl.float64)
    high = tl.full([BN, BC], float("-inf"), tl.float64)
    some = tl.zeros([BN, BC], tl.float64)
    for first in range(0, N, BN):
        at, here = part(first, c, N, C, BN)
        where = rows + at
        n = tl.load(where + PLANE, mask=here, other=0.0)
        count += n
        total += n * tl.load(where, mask=here, other=0.0) + tl.load(where + 2 * PLANE, mask=here, other=0.0)
        low = tl.minimum(low, tl.load(where + 6 * PLANE, mask=here, other=float("inf")))
        high = tl.maximum(high, tl.load(where + 7 * PLANE, mask=here, other=float("-inf")))
        some += tl.where(n > 0, 1.0, 0.0)
        if kept is not None:
            keep(kept + at, where, here, PLANE)
    size = tl.sum(count, 0)
    images = tl.sum(some, 0)
    least = tl.min(low, 0)
    most = tl.max(high, 0)
    about = tl.sum(total, 0) / tl.maximum(size, 1.0)
    origin = about
    if origins is not None:
        origin = tl.load(origins + c, mask=channels, other=0.0)

    # sums about the mean of all; and of images, whose own means come out of the same walk
    s1 = tl.zeros([BN, BC], tl.float64)
    s2 = tl.zeros([BN, BC], tl.float64)
    s3 = tl.zeros([BN, BC], tl.float64)
    s4 = tl.zeros([BN, BC], tl.float64)
    a = tl.zeros([BN, BC], tl.float64)
    b = tl.zeros([BN, BC], tl.float64)
    for first in range(0, N, BN):
        at, here = part(first, c, N, C, BN)
        where = rows + at
        n = tl.load(where + PLANE, mask=here, other=0.0)
        p1 = tl.load(where + 2 * PLANE, mask=here, other=0.0)
        p2 = tl.load(where + 3 * PLANE, mask=here, other=0.0)
        p3 = tl.load(where + 4 * PLANE, mask=here, other=0.0)
        p4 = tl.load(where + 5 * PLANE, mask=here, other=0.0)
        # moving sums from one point to another is the binomial formula, with e the distance of the points
        e = tl.where(n > 0, tl.load(where, mask=here, other=0.0) - about[None, :], 0.0)
        e2 = e * e
        s1 += p1 + n * e
        s2 += p2 + 2 * e * p1 + n * e2
        s3 += p3 + 3 * e * p2 + 3 * e2 * p1 + n * e2 * e
        s4 += p4 + 4 * e * p3 + 6 * e2 * p2 + 4 * e2 * e * p1 + n * e2 * e2
        is_image, mean, square = images_of(where, here, PLANE, origin)
        a += tl.where(is_image, mean, 0.0)
        b += tl.where(is_image, square, 0.0)
    mean, m2, m3, m4 = central(
        about, size, tl.sum(s1, 0), tl.sum(s2, 0), tl.sum(s3, 0), tl.sum(s4, 0), least, most
    )
    if origins is None:
        origin = mean  # now that it is known to the last digit
    a_mean = tl.sum(a, 0) / tl.maximum(images, 1.0)
    b_mean = tl.sum(b, 0) / tl.maximum(images, 1.0)

    aa = tl.zeros([BN, BC], tl.float64)
    bb = tl.zeros([BN, BC], tl.float64)
    ab = tl.zeros([BN, BC], tl.float64)
    for first in range(0, N, BN):
        at, here = part(first, c, N, C, BN)
        where = rows + at
        is_image, row_mean, square = images_of(where, here, PLANE, origin)
        da = tl.where(is_image, row_mean - a_mean[None, :], 0.0)
        db = tl.where(is_image, square - b_mean[None, :], 0.0)
        aa += da * da
        bb += db * db
        ab += da * db
    aa_sum = tl.sum(aa, 0)
    bb_sum = tl.sum(bb, 0)
    ab_sum = tl.sum(ab, 0)
    if LONE:
        # as stats.ImageMoments.of_values
        d = tl.where(size > 0, mean - origin, 0.0)
        images = size
        a_mean = d
        b_mean = d * d + m2 / tl.maximum(size, 1.0)
        aa_sum = m2
        ab_sum = 2 * d * m2 + m3
        bb_sum = tl.maximum(4 * d * d * m2 + 4 * d * m3 + m4 - m2 * m2 / tl.maximum(size, 1.0), 0.0)
    to = out + c
    tl.store(to, size, mask=channels)
    tl.store(to + C, mean, mask=channels)
    tl.store(to + 2 * C, m2, mask=channels)
    tl.store(to + 3 * C, m3, mask=channels)
    tl.store(to + 4 * C, m4, mask=channels)
    tl.store(to + 5 * C, least, mask=channels)
    tl.store(to + 6 * C, most, mask=channels)
    tl.store(to + 7 * C, origin, mask=channels)
    tl.store(to + 8 * C, images, mask=channels)
    tl.store(to + 9 * C, a_mean, mask=channels)
    tl.store(to + 10 * C, b_mean, mask=channels)
    tl.store(to + 11 * C, aa_sum, mask=channels)
    tl.store(to + 12 * C, bb_sum, mask=channels)
    tl.store(to + 13 * C, ab_sum, mask=channels)
    tl.store(to + 14 * C, N.to(tl.float64) * P - size, mask=channels)
    for term in tl.static_range(N_TERMS):
        sum_ = tl.zeros([BN, BC], tl.float64)
        for first in range(0, N, BN):
            at, here = part(first, c, N, C, BN)
            sum_ += tl.load(rows + at + PLANE * (term + 8), mask=here, other=0.0)
        tl.store(to + C * (term + 15), tl.sum(sum_, 0), mask=channels)
