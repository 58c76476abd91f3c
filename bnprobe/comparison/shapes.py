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
    found = [_between(*curves) for curves in zip(x_a, below_a, x_b, below_b, strict=True)]
    w1, ks = np.array(found).reshape(-1, 2).T
    return w1, ks


def _between(x_a: Array, below_a: Array, x_b: Array, below_b: Array) -> tuple[float, float]:
    """Of one channel: both curves are straight between their edges, and so is their difference between all edges."""
    if np.isnan(below_a).any() or np.isnan(below_b).any():
        return np.nan, np.nan
    x = np.union1d(x_a, x_b)
    gap = np.interp(x, x_b, below_b) - np.interp(x, x_a, below_a)
    left, right, width = gap[:-1], gap[1:], np.diff(x)
    # where the sign changes inside, two triangles; a trapezium elsewhere
    size = np.abs(left) + np.abs(right)
    crossing = left * right < 0
    area = np.where(crossing, (left**2 + right**2) / np.where(size > 0, size, 1.0), size) / 2 * width
    return float(area.sum()), float(np.abs(gap).max())
