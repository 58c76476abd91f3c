"""The pictures of a comparison, in the ink and the style of all others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.comparison import Differences, Pair
from bnprobe.comparison.first_difference import NOISE
from bnprobe.report.colours import MEMORY, MUTED, SEEN
from bnprobe.report.figures.maps import MapPanel, column_name, draw_map, label_columns, log2
from bnprobe.report.page.numbers import number
from bnprobe.stats.histogram import Z_EDGES
from bnprobe.stats.moments import Array

SEEN_PANELS = (
    MapPanel("shift of the inputs from A to B, in σ", "pre_shift", "vlag", centre=0),
    MapPanel("log₂ of the ratio of deviations, B / A", "pre_ratio", "vlag", log2, centre=0),
    MapPanel("change of the share of positive outputs", "fires_change", "vlag", centre=0),
)
STORED_PANELS = (
    MapPanel("shift of the running mean from A to B, in σ", "running_shift", "vlag", centre=0),
    MapPanel("log₂ of the ratio of running deviations, B / A", "running_ratio", "vlag", log2, centre=0),
    MapPanel("shift of β, in units of the layer's |γ|", "affine_shift", "vlag", centre=0),
    MapPanel("log₂ of |γ| of B / A", "affine_ratio", "vlag", lambda ratio: log2(np.abs(ratio)), centre=0),
)
REACH = 5.0
"""Deviations of the axis of distributions."""

RIDGES = 7
"""Channels of a layer that are drawn."""


def network(tables: Differences) -> Figure:
    """Gaps by depth above maps of layer by channel."""
    layers = tables.layers
    channels = tables.channels.assign(gamma=tables.channels["gamma_a"])
    groups = [group for _, group in channels.groupby(["layer", "call"], sort=False)]
    names = [column_name(group) for group in groups]
    seen = bool(layers[["pre_gap", "post_gap"]].notna().any(axis=None))
    panels = [
        panel for panel in (SEEN_PANELS if seen else STORED_PANELS) if channels[panel.column].notna().any()
    ]
    figure = Figure(figsize=(10, 2.6 + 1.75 * len(panels) + 0.06 * max(map(len, names))))
    grid = figure.add_gridspec(
        1 + len(panels), 2, width_ratios=(60, 1), height_ratios=[1.3, *[1.15] * len(panels)]
    )
    _gaps(figure.add_subplot(grid[0, 0]), layers, seen)
    for row, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(grid[row, 0])
        draw_map(axes, figure.add_subplot(grid[row, 1]), groups, panel)
        label_columns(axes, names if row == len(panels) else None)
    return figure


def _gaps(axes: Axes, layers: pd.DataFrame, seen: bool) -> None:
    """Two gaps per layer, the noise under them."""
    x = np.arange(len(layers))
    lines = (
        (("pre_gap", "what enters", MEMORY), ("post_gap", "what leaves", SEEN))
        if seen
        else (("running_gap", "running statistics", MEMORY), ("affine_gap", "γ and β", SEEN))
    )
    if seen and layers["pre_noise"].notna().any():
        noise = NOISE * layers[["pre_noise", "post_noise"]].max(axis=1).fillna(0).to_numpy()
        axes.fill_between(x, 0, noise, color=MUTED, alpha=0.25, linewidth=0, label=f"{NOISE:g} × noise")
    for column, label, colour in lines:
        axes.plot(
            x,
            layers[column].to_numpy(float),
            color=colour,
            label=label,
            marker="o",
            markersize=4,
            markeredgewidth=0,
            linewidth=1.3,
        )
    axes.set_title("how far apart A and B are, in σ")
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xticks([])
    axes.set_ylabel("")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0)


def layer(pair: Pair, channels: pd.DataFrame, by: str) -> Figure:
    """One layer: the distributions of the channels that changed most, A filled and B as a line, and all channels."""
    order = channels[by].fillna(-1).to_numpy().argsort(kind="stable")[::-1]
    chosen = [int(c) for c in order[:RIDGES]]
    drawn = (
        pair.a.pre_histogram is not None
        and pair.b.pre_histogram is not None
        and pair.a.n_calls
        and pair.b.n_calls
    )
    height = max(0.9 + 0.42 * len(chosen), 2.8)
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    sides = [*["before", "after"] * bool(drawn), "plane"]
    grid = figure.add_gridspec(
        1, len(sides), wspace=0.22, left=0.09, right=0.97, bottom=0.5 / height, top=1 - 0.3 / height
    )
    for place, side in enumerate(sides):
        axes = figure.add_subplot(grid[0, place])
        if side == "plane":
            _plane(axes, channels)
        else:
            _ridges(axes, pair, channels, chosen, side)
    return figure


def _ridges(axes: Axes, pair: Pair, channels: pd.DataFrame, chosen: list[int], side: str) -> None:
    """Densities about the mean of A, in deviations of both."""
    name = "pre" if side == "before" else "post"
    histograms: list[Any] = [getattr(record, f"{name}_histogram") for record in pair]
    middles = (Z_EDGES[1:] + Z_EDGES[:-1]) / 2
    z = middles[np.abs(middles) < REACH]
    for level, channel in enumerate(chosen):
        row = channels.iloc[channel]
        centre = float(row[f"{name}_mean_a"])
        scale = float(np.sqrt((row[f"{name}_var_a"] + row[f"{name}_var_b"]) / 2))
        curves = [
            histogram.density(channel, centre + scale * z) * scale
            if histogram is not None and scale > 0 and np.isfinite(scale + centre)
            else np.zeros_like(z)
            for histogram in histograms
        ]
        _ridge(axes, level, len(chosen), z, *curves)
    _ridge_axis(axes, [f"channel {c}" for c in chosen[::-1]] if side == "before" else [""] * len(chosen))
    axes.set_title(f"{side} the norm: A filled, B as a line")
    axes.set_xlabel("σ from the mean in A")
    axes.set_xlim(-REACH, REACH)


def _ridge(axes: Axes, level: int, n: int, x: Array, seen: Array, line: Array) -> None:
    """One channel's curve; lower ridges stand in front."""
    base, tall = n - 1 - level, 2.4
    axes.fill_between(
        x, base, base + np.minimum(tall * seen, 2.6), color=SEEN, alpha=0.6, linewidth=0, zorder=2 + level
    )
    axes.plot(x, base + np.minimum(tall * line, 2.6), color=MEMORY, linewidth=1.1, zorder=2.5 + level)


def _ridge_axis(axes: Axes, labels: list[str]) -> None:
    """A base line per channel, the same on every panel."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.25, len(labels) + 1.8)
    axes.spines["left"].set_visible(False)


def _plane(axes: Axes, channels: pd.DataFrame) -> None:
    """Every channel by how its mean and its deviation changed, of the aspect that changed most."""
    gaps = {name: float(channels[f"{name}_gap"].max()) for name in ("pre", "running", "affine")}
    name = "pre" if gaps["pre"] > 0 else max(gaps, key=lambda key: -1.0 if np.isnan(gaps[key]) else gaps[key])
    x = channels[f"{name}_shift"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log2(channels[f"{name}_ratio"].to_numpy(float))
    known = np.isfinite(x) & np.isfinite(y)
    sure = channels["pre_changed"].to_numpy(bool) if name == "pre" else np.ones(len(x), dtype=bool)
    for mask, colour in ((known & ~sure, MUTED), (known & sure, SEEN)):
        axes.scatter(x[mask], y[mask], s=16, color=colour, linewidths=0, alpha=0.8, rasterized=len(x) > 200)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    what = {"pre": "inputs", "running": "memory", "affine": "γ and β"}[name]
    axes.set_title(f"all channels: {what} (grey: not surely)" if name == "pre" else f"all channels: {what}")
    axes.set_xlabel("shift of the mean, σ")
    axes.set_ylabel("log₂ ratio of deviations")
    for line in (axes.xaxis, axes.yaxis):
        line.set_major_formatter(lambda value, _: number(value, 2))
