"""The pictures of a comparison as specs: the network at a glance, and the channels of one layer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.comparison import Differences, Pair
from bnprobe.comparison.first_difference import NOISE
from bnprobe.report.colours import EXPECTED, MEASURED, MUTED
from bnprobe.report.figures.from_tables import MapColumn, channel_map, column_names, log2, of
from bnprobe.report.figures.specs import Band, Curves, LayerChange, Line, NetworkMap, Plane, Ridges
from bnprobe.stats.histogram import Z_EDGES, Histogram
from bnprobe.stats.moments import Array

MEASURED_MAPS = (
    MapColumn("shift of the inputs from A to B, in σ", "pre_shift", "vlag", centre=0),
    MapColumn("log₂ of the ratio of standard deviations, B / A", "pre_ratio", "vlag", log2, centre=0),
    MapColumn("change of the share of positive outputs", "fires_change", "vlag", centre=0),
)
STORED_MAPS = (
    MapColumn("shift of the running mean from A to B, in σ", "running_shift", "vlag", centre=0),
    MapColumn(
        "log₂ of the ratio of running standard deviations, B / A", "running_ratio", "vlag", log2, centre=0
    ),
    MapColumn("shift of β, in units of the layer's |γ|", "affine_shift", "vlag", centre=0),
    MapColumn("log₂ of |γ| of B / A", "affine_ratio", "vlag", lambda ratio: log2(np.abs(ratio)), centre=0),
)
REACH = 5.0
"""Standard deviations that the axis of distributions reaches to."""

RIDGES = 7
"""Channels of a layer whose distributions are drawn."""


def network_map(tables: Differences) -> NetworkMap:
    """Gaps by depth above maps of the differences of every channel, sorted by |γ| of A."""
    channels = tables.channels.assign(gamma=tables.channels["gamma_a"])
    groups = [group for _, group in channels.groupby(["layer", "call"], sort=False)]
    seen = bool(tables.layers[["pre_gap", "post_gap"]].notna().any(axis=None))
    maps = [one for one in (MEASURED_MAPS if seen else STORED_MAPS) if channels[one.column].notna().any()]
    return NetworkMap(
        column_names(groups),
        tuple(str(group["layer"].iloc[0]) for group in groups),
        _gaps(tables.layers, seen),
        tuple(channel_map(groups, one) for one in maps),
    )


def _gaps(layers: pd.DataFrame, seen: bool) -> Curves:
    """Two gaps per layer, and as a band what the choice of images makes of them."""
    lines = (
        (("pre_gap", "inputs", EXPECTED), ("post_gap", "outputs", MEASURED))
        if seen
        else (("running_gap", "running statistics", EXPECTED), ("affine_gap", "γ and β", MEASURED))
    )
    return Curves(
        "difference between A and B, in standard deviations (σ)",
        tuple(Line(of(layers, column), label, colour) for column, label, colour in lines),
        _noise(layers) if seen and layers["pre_noise"].notna().any() else None,
        limits=(0, None),
    )


def _noise(layers: pd.DataFrame) -> Band:
    high = NOISE * layers[["pre_noise", "post_noise"]].max(axis=1).fillna(0).to_numpy(dtype=np.float64)
    return Band(np.zeros_like(high), high, MUTED, f"{NOISE:g} × noise")


def layer_change(pair: Pair, channels: pd.DataFrame, by: str) -> LayerChange:
    """One layer: distributions of the channels that changed most by the column `by`, and all channels on a plane."""
    order = channels[by].fillna(-1).to_numpy().argsort(kind="stable")[::-1]
    chosen = [int(c) for c in order[:RIDGES]]
    recorded = all(record.pre_histogram is not None and record.n_calls for record in pair)
    sides = [_ridges(pair, channels, chosen, side) for side in ("before", "after")] if recorded else []
    return LayerChange(tuple(sides), _plane(channels))


def _ridges(pair: Pair, channels: pd.DataFrame, chosen: list[int], side: str) -> Ridges:
    """Densities about the mean of A, in standard deviations of both sides together."""
    name = "pre" if side == "before" else "post"
    middles = (Z_EDGES[1:] + Z_EDGES[:-1]) / 2
    z = middles[np.abs(middles) < REACH]
    a, b = (
        tuple(_density(getattr(record, f"{name}_histogram"), channels.iloc[c], c, name, z) for c in chosen)
        for record in pair
    )
    return Ridges(
        f"{side} the norm: A filled, B as a line",
        tuple(f"channel {c}" for c in chosen),
        z,
        a,
        b,
        "σ from the mean in A",
    )


def _density(histogram: Histogram | None, row: pd.Series, channel: int, name: str, z: Array) -> Array:
    centre = float(row[f"{name}_mean_a"])
    scale = float(np.sqrt((row[f"{name}_var_a"] + row[f"{name}_var_b"]) / 2))
    if histogram is None or not (scale > 0 and np.isfinite(scale + centre)):
        return np.zeros_like(z)
    return np.asarray(histogram.density(channel, centre + scale * z) * scale)


def _plane(channels: pd.DataFrame) -> Plane:
    """Every channel by how its mean and its scale changed, of the aspect that changed most."""
    gaps = {name: float(channels[f"{name}_gap"].max()) for name in ("pre", "running", "affine")}
    name = "pre" if gaps["pre"] > 0 else max(gaps, key=lambda key: -1.0 if np.isnan(gaps[key]) else gaps[key])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(of(channels, f"{name}_ratio"))
    sure = channels["pre_changed"].to_numpy(bool) if name == "pre" else np.ones(len(channels), dtype=bool)
    what = {"pre": "inputs", "running": "running statistics", "affine": "γ and β"}[name]
    return Plane(
        f"all channels: {what} (gray: within sampling error)" if name == "pre" else f"all channels: {what}",
        of(channels, f"{name}_shift"),
        ratio,
        sure,
        "shift of the mean, σ",
        "log₂ ratio of standard deviations",
    )
