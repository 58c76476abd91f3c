"""Histograms as bytes: every channel's density on the fixed bins, in 20 steps of its root.

The root, because the eye compares areas near the foot of a curve as well as at its top. The page needs no
total and no unit: a density integrates to 1. Where a histogram after the norm holds the counts of the one
before it, as it does where the norm is one affine map per channel, it is not written a second time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.recording import LayerRecord
from bnprobe.stats import Histogram
from bnprobe.stats.histogram import Z_EDGES

STEPS = 20
WIDTHS = np.diff(Z_EDGES)
EDGES: list[float] = [float(edge) for edge in Z_EDGES]
"""Edges of the bins in units of the scale; the page draws by them."""

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def steps(histogram: Histogram) -> Bytes:
    """Density of every channel in its first sheet's bins, shape (C, N_BINS), 0 to STEPS, the mode at STEPS."""
    density = one_sheet(histogram) / WIDTHS
    peak = density.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(np.where(peak > 0, density / peak, 0.0))
    levels: Bytes = np.rint(STEPS * root).astype(np.uint8)
    return levels


def one_sheet(histogram: Histogram) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Counts on the first sheet's bins; those of further sheets are taken as evenly spread inside their bins."""
    counts: np.ndarray[Any, np.dtype[np.float64]] = histogram.counts[0].copy()
    for centre, scale, more in zip(
        histogram.centre[1:], histogram.scale[1:], histogram.counts[1:], strict=True
    ):
        for c in np.flatnonzero(more.sum(axis=1)):
            below = np.concatenate([[0.0], np.cumsum(more[c])])
            edges = (histogram.centre[0, c] + histogram.scale[0, c] * Z_EDGES - centre[c]) / scale[c]
            counts[c] += np.diff(np.interp(edges, Z_EDGES, below))
    return counts


def same_counts(pre: Histogram, post: Histogram, gamma: np.ndarray[Any, Any] | None) -> bool:
    """Whether the norm moved and scaled the counts and did nothing else: a negative γ turns them round."""
    if len(pre.counts) != 1 or len(post.counts) != 1:
        return False
    sign = np.ones(pre.counts.shape[1]) if gamma is None else gamma
    turned = np.where((sign < 0)[:, None], pre.counts[0, :, ::-1], pre.counts[0])
    known = sign != 0
    return bool(np.array_equal(turned[known], post.counts[0][known]))


def place_before(record: LayerRecord) -> str:
    """`running` where the bins before the norm are set by the running statistics, else `own`."""
    histogram = record.pre_histogram
    if histogram is None or record.running_mean is None or record.running_var is None:
        return "own"
    with np.errstate(invalid="ignore"):
        sigma = np.sqrt(record.running_var + record.eps)
    return "running" if _agree(histogram, record.running_mean, sigma) else "own"


def place_after(record: LayerRecord) -> str:
    """`target` where the bins after the norm are set by β and |γ|, else `own`."""
    histogram, c = record.post_histogram, record.n_channels
    if histogram is None:
        return "own"
    beta = np.zeros(c) if record.beta is None else record.beta
    gamma = np.ones(c) if record.gamma is None else np.abs(record.gamma)
    return "target" if _agree(histogram, beta, np.where(gamma == 0, 1.0, gamma)) else "own"


def _agree(histogram: Histogram, centre: np.ndarray[Any, Any], scale: np.ndarray[Any, Any]) -> bool:
    return (
        np.allclose(histogram.scale[0], scale, rtol=1e-4, atol=0)
        and bool(np.all(np.abs(histogram.centre[0] - centre) <= 1e-3 * histogram.scale[0]))
    )  # fmt: skip
