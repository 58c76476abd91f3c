"""One channel from its inputs to its outputs: which one tells most, and what is drawn of it."""

from __future__ import annotations

import numpy as np

from bnprobe.measures import Tables
from bnprobe.measures.roles import acting, corners
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.names import site_name
from bnprobe.report.browser.densities import one_sheet
from bnprobe.report.figures.specs import Density, Transfer
from bnprobe.report.vocabulary import written
from bnprobe.stats import Histogram
from bnprobe.stats.gaussian import applied, is_known
from bnprobe.stats.histogram import Z_EDGES
from bnprobe.stats.moments import Array

FLAT = 0.02
"""|γ| below which a channel's outputs are one value, of which there is nothing to draw."""

FARTHEST = 4.0
"""σ up to which the line of the norm is drawn."""


def most_telling(recording: Recording, tables: Tables) -> Transfer | None:
    """Of the channel farthest from its running mean, or without one with the heaviest tail; None without histograms."""
    channels = tables.channels
    drawn = np.concatenate([np.full(r.n_channels, _has_histograms(r)) for r in recording.layers])
    drawn &= (channels["gamma"].abs().fillna(1.0) >= FLAT).to_numpy()
    for column in ("shift", "pre_kurtosis"):
        strange = np.where(drawn, channels[column].abs().to_numpy(dtype=np.float64), np.nan)
        if np.isfinite(strange).any():
            row = channels.iloc[int(np.argmax(np.where(np.isfinite(strange), strange, -1)))]
            site = row["layer"], row["call"]
            record = next(r for r in recording.layers if (r.layer, r.call) == site)
            return transfer(record, int(row["channel"]))
    return None


def _has_histograms(record: LayerRecord) -> bool:
    return record.pre_histogram is not None and record.post_histogram is not None


def transfer(record: LayerRecord, channel: int) -> Transfer | None:
    """What is drawn of a channel; None where its values were not counted or do not vary."""
    pre, post = record.pre_histogram, record.post_histogram
    centre, scale = _reference(record, channel)
    if pre is None or post is None or not (scale > 0 and pre.n[channel] > 0 and post.n[channel] > 0):
        return None
    gamma = 1.0 if record.gamma is None else float(record.gamma[channel])
    beta = 0.0 if record.beta is None else float(record.beta[channel])
    z = np.linspace(-FARTHEST, FARTHEST, 161)
    name, known = acting(record), corners(record)
    of = "in running σ from the running mean" if record.has_running else "in σ of the channel from its mean"
    return Transfer(
        f"{site_name(record.layer, record.call)}, channel {channel}",
        _density(pre, channel, centre, scale),
        _density(post, channel, 0.0, 1.0),
        gamma,
        beta,
        z,
        f"input, {of}",
        record.has_running,
        applied(name, beta + gamma * z) if is_known(name) else None,
        written(name.partition("(")[0]) if is_known(name) and name != "none" else "",
        (known.low, known.high) if known else (-np.inf, np.inf),
    )


def _reference(record: LayerRecord, channel: int) -> tuple[float, float]:
    """Mean and standard deviation that the channel's inputs are measured by."""
    if record.running_mean is not None and record.running_var is not None:
        return float(record.running_mean[channel]), float(np.sqrt(record.running_var[channel] + record.eps))
    pre = record.pre
    return float(pre.mean_seen[channel]), float(np.sqrt(pre.var_population[channel] + record.eps))


def _density(histogram: Histogram, channel: int, centre: float, scale: float) -> Density:
    """A channel's histogram in units of `scale` from `centre`."""
    counts: Array = one_sheet(histogram)[channel]
    edges = histogram.centre[0, channel] + histogram.scale[0, channel] * Z_EDGES
    edges = (edges - centre) / scale
    return Density(edges, counts / counts.sum() / np.diff(edges))
