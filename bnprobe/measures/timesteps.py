"""What norms meet by timestep: the groups that they normalize, and what scales, shifts and gates them.

How far timesteps decide on a modulation, and not the samples, is the share of its variance that lies between buckets, less
what chance makes of it: 1 - (1 - between / all) (n - 1) / (n - B), for n samples in B buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats.moments import Array, ratio
from bnprobe.stats.timesteps import LOGARITHMIC, PARTS, TimestepStats

ROUNDING = 1e-12
"""Share of the squares below which a variance is rounding."""

COLUMNS: dict[str, type] = {
    "layer": object,
    "call": np.int64,
    "argument": object,
    "low": np.float64,
    "high": np.float64,
    "timestep": np.float64,
    "n_samples": np.int64,
    "group": np.int64,
    "group_mean": np.float64,
    "group_mean_sd": np.float64,
    "group_sd": np.float64,
    "group_log_sd": np.float64,
    **{f"{part}{end}": np.float64 for part in PARTS for end in ("", "_sd")},
}
"""The columns of the table by timestep, and their types."""


def timesteps(recording: Recording) -> pd.DataFrame:
    """A row per site, bucket of timesteps that was met, and group; none where the model was given no timesteps."""
    parts = [_rows(record, record.timesteps) for record in recording.layers if record.timesteps is not None]
    rows: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) if parts else [] for name in COLUMNS
    }
    return pd.DataFrame({name: pd.Series(rows[name], dtype=kind) for name, kind in COLUMNS.items()})


def _rows(record: LayerRecord, stats: TimestepStats) -> dict[str, Any]:
    met = np.flatnonzero(stats.seen[:, 0])
    n, total = stats.seen[met].T
    n_groups = stats.groups.shape[2]
    edges = stats.buckets.edges
    of_buckets = {"low": edges[met], "high": edges[met + 1], "timestep": total / n}
    if stats.argument in LOGARITHMIC:
        of_buckets = {name: np.exp2(values) for name, values in of_buckets.items()}
    columns: dict[str, Any] = {
        name: np.repeat(values, n_groups) for name, values in (of_buckets | {"n_samples": n}).items()
    }
    columns |= {
        "layer": np.full(len(met) * n_groups, record.layer, dtype=object),
        "call": np.full(len(met) * n_groups, record.call),
        "argument": np.full(len(met) * n_groups, stats.argument, dtype=object),
        "group": np.tile(np.arange(n_groups), len(met)),
    }
    for name, values in (*_of_groups(stats), *_of_parts(stats)):
        columns[name] = values[met].reshape(-1)
    return columns


def _of_groups(stats: TimestepStats) -> Sequence[tuple[str, Array]]:
    """Of the statistics that a norm computes in each sample, (B, G) each."""
    n, mean, mean_square, log, log_square = stats.groups.transpose(1, 0, 2)
    middle = ratio(log, n)
    return (
        ("group_mean", ratio(mean, n)),
        ("group_mean_sd", _sd(n, mean, mean_square)),
        ("group_sd", np.exp(middle)),
        ("group_log_sd", _sd(n, log, log_square)),
    )


def _of_parts(stats: TimestepStats) -> Sequence[tuple[str, Array]]:
    """Of scale, shift and gate the mean and the standard deviation over samples and the channels of a group, (B, G) each."""
    shape = (len(stats.seen), stats.groups.shape[2])
    if stats.sums is None or stats.squares is None or stats.n_modulated is None:
        return [(f"{part}{end}", np.full(shape, np.nan)) for part in PARTS for end in ("", "_sd")]
    sums = stats.sums.reshape(*stats.sums.shape[:2], shape[1], -1)
    found = []
    for i, part in enumerate(PARTS):
        n = stats.n_modulated[:, i, None] * sums.shape[3] * np.ones(shape)
        total = sums[:, i].sum(-1)
        found += [(part, ratio(total, n)), (f"{part}_sd", _sd(n, total, stats.squares[:, i]))]
    return found


def _sd(n: Array, total: Array, squares: Array) -> Array:
    """The standard deviation (divisor n), of sums."""
    mean = ratio(total, n)
    return np.asarray(np.sqrt(np.maximum(ratio(squares, n) - mean**2, 0)))


def share_of_time(stats: TimestepStats, part: str) -> float:
    """The share of the variance of a modulation, over samples and summed over channels, that lies between timesteps.

    Less what chance makes of it, and at least 0. NaN without such a modulation, without variance and with one bucket.
    """
    if stats.sums is None or stats.squares is None or stats.n_modulated is None:
        return float("nan")
    i = PARTS.index(part)
    return _between(stats.n_modulated[:, i, None], stats.sums[:, i], stats.squares[:, i])


def share_of_time_in_groups(stats: TimestepStats) -> float:
    """The same of the log of the standard deviation that a norm divides by, summed over groups."""
    n, _, _, log, log_square = stats.groups.transpose(1, 0, 2)
    return _between(n, log, log_square)


def _between(n: Array, sums: Array, squares: Array) -> float:
    """Of sums (B, K) of n (B, 1) or (B, K) samples, and of squares in any shape."""
    counts = np.broadcast_to(n, sums.shape)
    samples, buckets = counts.sum(0), (counts > 0).sum(0)
    n_buckets, n_samples = float(buckets.max()), float(samples.min())
    if n_buckets < 2 or n_samples <= n_buckets:
        return float("nan")
    mean = sums.sum(0) / samples
    between = float((counts * (ratio(sums, counts) - mean) ** 2)[counts > 0].sum())
    whole = float(squares.sum() - (samples * mean**2).sum())
    if not whole > ROUNDING * float(squares.sum()):
        return float("nan")
    adjusted = 1 - (1 - between / whole) * (n_samples - 1) / (n_samples - n_buckets)
    return max(adjusted, 0.0)
