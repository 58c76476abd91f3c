"""Outlier dimensions: channels far larger than the rest, which share one divisor with them.

Layer, group and RMS norm divide channels by a common standard deviation, so a channel that is many times larger
than the others decides it, and with it what is left of them. Batch and instance norm divide every channel
by its own; for instance norm the numbers still describe the inputs. Layer and RMS norm divide each token by its own scale,
so there the size of a channel is that after dividing: a few loud tokens would else decide alone.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import BATCH, GROUP, LayerRecord
from bnprobe.recording.terms import OUTLIER
from bnprobe.stats.moments import Array, ratio

MOST_LISTED = 10
"""Outliers named in the table of layers, the largest first."""

_DETTMERS = "Dettmers et al. 2022, arXiv:2208.07339; Kovaleva et al. 2021, arXiv:2105.06990"
COLUMNS = (
    Column(
        "rms_ratio",
        "Size of the channel's inputs relative to the typical one with its divisor; not defined for batch norms.",
        "√(pre_mean² + pre_var) / median over channels, of a group norm over those of the group; of a norm over "
        "channels √mean z², z a token divided by its own scale",
        "",
        _DETTMERS,
    ),
    Column(
        "outliers",
        "Number of channels far larger than the rest, which share a divisor with them.",
        f"count of rms_ratio > {OUTLIER:g}",
        "channels",
        _DETTMERS,
        "layers",
    ),
    Column(
        "outlier_channels",
        f"Which channels these are, the largest first, {MOST_LISTED} at most.",
        f"channels with rms_ratio > {OUTLIER:g}",
        table="layers",
    ),
    Column(
        "rms_ratio_max",
        "Size of the largest channel relative to the typical one.",
        "max rms_ratio",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The size of each channel, shape (C,); NaN for norms over the batch and where nothing was seen."""
    if record.pools == BATCH:
        return {"rms_ratio": np.full(record.n_channels, np.nan)}
    if record.tokens is not None and record.tokens.n_tokens:
        rms = np.sqrt(record.tokens.z_square)
        return {"rms_ratio": ratio(rms, median(rms))}
    # hypot and not the root of a sum of squares, which overflows first
    rms = np.hypot(record.pre.mean_seen, np.sqrt(record.pre.var_population))
    n_groups = 1 if record.own_mean is None or record.pools != GROUP else record.own_mean.shape[0]
    typical = np.repeat([median(group) for group in np.split(rms, n_groups)], record.n_channels // n_groups)
    return {"rms_ratio": ratio(rms, typical)}


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float | str]:
    """How many outliers there are, which, and how large the largest channel is; NaN for norms over the batch."""
    ratio = (channels or channel_columns(record))["rms_ratio"]
    known = ratio[~np.isnan(ratio)]
    if not known.size:
        return {"outliers": np.nan, "outlier_channels": "", "rms_ratio_max": np.nan}
    order = np.argsort(-ratio, kind="stable")
    far = [int(c) for c in order if ratio[c] > OUTLIER]
    return {
        "outliers": float(len(far)),
        "outlier_channels": ", ".join(map(str, far[:MOST_LISTED])),
        "rms_ratio_max": float(known.max()),
    }
