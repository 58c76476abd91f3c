"""Distance of two distributions as they are, not as Gaussians: from their histograms."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.gaussian import cumulative
from bnprobe.stats.histogram import Histogram
from bnprobe.stats.moments import Array


def distances(a: Histogram | None, b: Histogram | None, n_channels: int) -> tuple[Array, Array]:
    """Wasserstein-1 distance (in the units of the values) and Kolmogorov-Smirnov distance; shape (C,) each.

    W1 is the area between the two cumulative shares, KS their largest gap (Vallender 1974). Values are
    taken as evenly spread inside a bin, those beyond the outermost edges as lying at them. NaN without both
    histograms, and where one counted nothing.
    """
    if a is None or b is None:
        unknown = np.full(n_channels, np.nan)
        return unknown, unknown
    with np.errstate(invalid="ignore", divide="ignore"):
        (x_a, below_a), (x_b, below_b) = cumulative(a), cumulative(b)
        # with the same running statistics both have the same bins, and all channels are done at once
        alike = (x_a == x_b).all(axis=1) if x_a.shape == x_b.shape else np.zeros(n_channels, dtype=bool)
        w1, ks = np.full((2, n_channels), np.nan)
        w1[alike], ks[alike] = _area(x_a[alike], below_b[alike] - below_a[alike])
        for c in np.flatnonzero(~alike):
            x = np.union1d(x_a[c], x_b[c])
            gap = np.interp(x, x_b[c], below_b[c]) - np.interp(x, x_a[c], below_a[c])
            w1[c], ks[c] = _area(x, gap)
    return w1, ks


def _area(x: Array, gap: Array) -> tuple[Array, Array]:
    """Area under |gap|, which is straight between the edges x, and its largest value, along the last axis."""
    left, right, width = gap[..., :-1], gap[..., 1:], np.diff(x)
    size = np.abs(left) + np.abs(right)
    # where the sign changes inside, two triangles; a trapezium elsewhere
    sides = np.where(left * right < 0, (left**2 + right**2) / size, size)
    return (sides / 2 * width).sum(axis=-1), np.abs(gap).max(axis=-1)
