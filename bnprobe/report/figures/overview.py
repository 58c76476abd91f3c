"""The whole network in one picture: a depth profile above maps of layer by channel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.report.colours import MEMORY, MUTED, PAPER, SEEN
from bnprobe.report.figures.axes import ratio_ticks, stage_bounds
from bnprobe.report.figures.maps import MapPanel, column_name, draw_map, label_columns, log2, log10_root
from bnprobe.stats.moments import Array

MEMORY_PANELS = (
    MapPanel("shift of the mean, in remembered σ", "shift", "vlag", centre=0),
    MapPanel("log₂ of the scale ratio (deviation seen / remembered)", "scale_ratio", "vlag", log2, centre=0),
)

STORED_PANELS = (
    MapPanel("log₁₀ of the remembered deviation", "running_var", "viridis", log10_root),
    MapPanel("β", "beta", "vlag", centre=0),
)

OTHER_PANELS = (MapPanel("log₁₀ of the deviation before the norm", "pre_var", "viridis", log10_root),)

COMMON_PANELS = (
    MapPanel("share of positive outputs", "fires", "mako", limits=(0, 1)),
    MapPanel("γ", "gamma", "icefire", centre=0),
)


def network(channels: pd.DataFrame) -> Figure:
    """The whole network: a depth profile above maps of layer by channel, sorted by |γ| within a layer."""
    groups = [group for _, group in channels.groupby(["layer", "call"], sort=False)]
    names = [column_name(group) for group in groups]
    stored = any(group["shift"].notna().any() for group in groups)
    seen = bool((channels["n_values"] > 0).any())
    panels = [*(MEMORY_PANELS if stored else OTHER_PANELS if seen else STORED_PANELS), *COMMON_PANELS]
    panels = [panel for panel in panels if channels[panel.column].notna().any()]
    # a fixed layout, in inches: the automatic one costs as much as the drawing
    tall, gap, below = (1.25, *[1.45] * len(panels)), 0.36, 0.15 + 0.066 * max(map(len, names))
    height = sum(tall) + gap * len(tall) + below
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    grid = figure.add_gridspec(
        len(tall),
        2,
        width_ratios=(60, 1),
        height_ratios=tall,
        wspace=0.03,
        hspace=gap / (sum(tall) / len(tall)),
        left=0.065,
        right=0.935,
        bottom=below / height,
        top=1 - gap / height,
    )
    profile = figure.add_subplot(grid[0, 0])
    draw_profile = _variance_profile if stored else _deviation_profile if seen else _stored_profile
    draw_profile(profile, groups)
    bounds = stage_bounds([group["layer"].iloc[0] for group in groups])
    for row, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(grid[row, 0])
        draw_map(axes, figure.add_subplot(grid[row, 1]), groups, panel)
        for bound in bounds:
            axes.axvline(bound, color=PAPER, linewidth=1.5)
        label_columns(axes, names if row == len(panels) else None)
    for bound in bounds:
        profile.axvline(bound - 0.5, color=MUTED, linewidth=0.5, alpha=0.6)
    return figure


def _variance_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    low, mid, high = _spread(groups, "scale_ratio") ** 2
    _profile(axes, low, mid, high)
    axes.axhline(1, color=MEMORY, linewidth=1)
    axes.set_title(
        "variance entering the norm, as a share of the remembered one plus eps (median and middle half of the channels)"
    )
    ratio_ticks(axes)


def _deviation_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    low, mid, high = np.sqrt(_spread(groups, "pre_var"))
    _profile(axes, low, mid, high)
    axes.set_title("deviation entering the norm (median and middle half of the channels)")
    ratio_ticks(axes)


def _stored_profile(axes: Axes, groups: list[pd.DataFrame]) -> None:
    """Without data: what batch norms divide by, or where no norm remembers anything, the learned scale."""
    remembered = any(group["running_var"].notna().any() for group in groups)
    column = "running_var" if remembered else "gamma"
    sizes = [group.assign(size=group[column].abs() ** (0.5 if remembered else 1.0)) for group in groups]
    _profile(axes, *_spread(sizes, "size"))
    name = "remembered deviation" if remembered else "|γ|"
    axes.set_title(f"{name} (median and middle half of the channels)")
    if any((group["size"] > 0).any() for group in sizes):
        ratio_ticks(axes)


def _profile(axes: Axes, low: Array, mid: Array, high: Array) -> None:
    x = np.arange(len(mid))
    axes.fill_between(x, low, high, color=SEEN, alpha=0.25, linewidth=0)
    axes.plot(x, mid, color=SEEN, marker="o", markersize=3, linewidth=1.3)
    axes.set_xlim(-0.5, len(mid) - 0.5)
    axes.set_xticks([])


def _spread(groups: list[pd.DataFrame], column: str) -> Array:
    """Quartiles of a column per site, shape (3, L)."""
    rows = [group[column][np.isfinite(group[column])] for group in groups]
    return np.array([np.quantile(row, (0.25, 0.5, 0.75)) if len(row) else [np.nan] * 3 for row in rows]).T
