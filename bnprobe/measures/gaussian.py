"""How far a channel's inputs are from a Gaussian, read from the histogram: normalization assumes no shape,
but everything that is predicted from beta and gamma alone assumes this one.

The histogram gives the cumulative distribution exactly at the edges of its bins; in between values are
taken as spread evenly. What that costs depends on the width w of the bins at the data, in standard deviations. For
smooth distributions the L1 ratio is off by up to 0.003 at w = 1/8 (data that lie where the running statistics say)
and 0.02 at w = 1/2, W1 by up to 0.01 and 0.06, and the Kolmogorov-Smirnov distance, read at
the edges, by up to 0.02. Coarser than COARSE, or with values beyond the outermost edges, nothing is said.
"""

from __future__ import annotations

import math

import numpy as np

from bnprobe.measures.columns import Column, Columns, Paint
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.histogram import Z_EDGES, Histogram
from bnprobe.stats.moments import Array

COARSE = 0.5
"""Width of the bins at the data, in the channel's standard deviations, beyond which its shape is not read."""

_MASSEY = "Kolmogorov-Smirnov: Massey 1951"
COLUMNS = (
    Column(
        "l1_ratio",
        "Mean absolute distance from the mean relative to the standard deviation: 1 if Gaussian, below 1 with heavy tails.",
        "√(π/2) · mean |x − mean| / std; 0.886 Laplacian, 1.085 uniform",
        "",
        "L1 batch norm: Hoffer et al. 2018, arXiv:1803.01814",
    ),
    Column(
        "gauss_ks",
        "Largest gap between the cumulative distribution of the inputs and that of a Gaussian of the same mean and std.",
        "max over bin edges of |F(x) − Φ((x − mean) / std)|",
        "0 to 1",
        _MASSEY,
    ),
    Column(
        "gauss_w1",
        "How far values must be moved, on average, to turn the inputs into a Gaussian of the same mean and std.",
        "∫ |F(x) − Φ((x − mean) / std)| dx / std",
        "σ",
        "1-Wasserstein distance: Vallender 1974",
        rank=9,
        paint=Paint("shape and classes", "distance of the inputs from a Gaussian", "rocket", limits=(0, 0.5)),
    ),
    Column("l1_ratio_median", "Typical L1 ratio of the layer's inputs.", "median l1_ratio", table="layers"),
    Column(
        "gauss_ks_median",
        "Typical gap to a Gaussian (gauss_ks).",
        "median gauss_ks",
        "0 to 1",
        table="layers",
    ),
    Column(
        "gauss_w1_median",
        "Typical distance to a Gaussian (gauss_w1).",
        "median gauss_w1",
        "σ",
        table="layers",
    ),
)
_NAMES = ("l1_ratio", "gauss_ks", "gauss_w1")


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """L1 ratio and distances to the Gaussian of the same mean and std, shape (C,) each.

    NaN without histograms, for a constant channel, and where the histogram cannot tell (see above).
    Mean and std are the histogram's own, because it may count a part of the samples only.
    """
    histogram = record.pre_histogram
    if histogram is None:
        return dict.fromkeys(_NAMES, np.full(record.n_channels, np.nan))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found = _distances(*cumulative(histogram))
        inside = _all_inside(record, histogram)
    return {name: np.where(inside, values, np.nan) for name, values in zip(_NAMES, found, strict=True)}


def cumulative(histogram: Histogram) -> tuple[Array, Array]:
    """Edges x and the share of values below them, shape (C, E) each; all sheets together."""
    x = histogram.centre[..., None] + histogram.scale[..., None] * Z_EDGES
    below = np.concatenate([np.zeros((*x.shape[:2], 1)), np.cumsum(histogram.counts, axis=2)], axis=2)
    n = histogram.n[:, None]
    if len(x) == 1:
        return x[0], below[0] / n
    edges = np.sort(np.concatenate(list(x), axis=1), axis=1)
    joint = [sum(np.interp(edges[c], x[s, c], below[s, c]) for s in range(len(x))) for c in range(len(edges))]
    return edges, np.array(joint) / n


def _distances(x: Array, share: Array) -> tuple[Array, Array, Array]:
    """L1 ratio, Kolmogorov-Smirnov and Wasserstein distance of values spread evenly between edges."""
    p, width, middle = np.diff(share), np.diff(x), (x[:, 1:] + x[:, :-1]) / 2
    mean = (p * middle).sum(1, keepdims=True)
    at_middles, inside = (p * (middle - mean) ** 2).sum(1), (p * width**2).sum(1) / 12
    # smoothly distributed values vary by w²/12 less than the middles of their bins (Sheppard's correction)
    sd = np.sqrt(_positive(at_middles - inside))
    # values spread evenly vary by w²/12 more, and their absolute distances are as much too large: it cancels
    sd_even = np.sqrt(_positive(at_middles + inside))
    left, right = x[:, :-1] - mean, x[:, 1:] - mean
    straddles = (left < 0) & (right > 0)
    apart = np.where(straddles, (left**2 + right**2) / (2 * width), np.abs(middle - mean))
    l1 = math.sqrt(math.pi / 2) * (p * apart).sum(1) / sd_even
    gap = np.abs(share - _normal_cdf((x - mean) / sd[:, None]))
    w1 = ((gap[:, 1:] + gap[:, :-1]) / 2 * width).sum(1) / sd
    coarse = np.sqrt(12 * inside) > COARSE * sd
    unknown: Array = np.where(coarse | np.isnan(sd), np.nan, 0.0)
    return l1 + unknown, gap.max(1) + unknown, w1 + unknown


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, np.nan)


def _normal_cdf(t: Array) -> Array:
    from bnprobe.stats.scipy_lazy import special

    # not stats.norm.cdf, which asks every value whether it may be there, in five times the time
    return np.asarray(special.ndtr(t), dtype=np.float64)


def _all_inside(record: LayerRecord, histogram: Histogram) -> Array:
    """Whether every value lies within the outermost edges, whose bins are open."""
    reach = histogram.scale * Z_EDGES[-1]
    low, high = (histogram.centre - reach).max(0), (histogram.centre + reach).min(0)
    inside: Array = (record.pre.low >= low) & (record.pre.high <= high)
    return inside


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """Medians over channels; NaN where no channel has a value."""
    columns = channels or channel_columns(record)
    return {f"{name}_median": median(columns[name]) for name in _NAMES}
