"""Maps of layer by channel under a profile by depth: a column per site, its channels stretched to one height."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.report.colours import MUTED, PAPER
from bnprobe.report.figures.axes import names_below, stage_bounds
from bnprobe.report.figures.charts import curves
from bnprobe.report.figures.palettes import palette
from bnprobe.report.figures.specs import ChannelMap, NetworkMap
from bnprobe.stats.moments import Array

HEIGHT = 64
"""Rows of a map column: layers of any width are stretched to one height, so narrow ones are not lost."""

PROFILE, MAP, GAP, LETTER = 1.25, 1.45, 0.36, 0.066
"""Inches: height of the profile and of a map, room above each, and room below for one letter of a name."""


def network(spec: NetworkMap) -> Figure:
    """The whole network. The layout is fixed, in inches: the automatic one costs as much as the drawing."""
    tall = (PROFILE, *[MAP] * len(spec.maps))
    below = 0.15 + LETTER * max(map(len, spec.names))
    height = sum(tall) + GAP * len(tall) + below
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    grid = figure.add_gridspec(
        len(tall),
        2,
        width_ratios=(60, 1),
        height_ratios=tall,
        wspace=0.03,
        hspace=GAP / (sum(tall) / len(tall)),
        left=0.065,
        right=0.935,
        bottom=below / height,
        top=1 - GAP / height,
    )
    bounds = stage_bounds(list(spec.paths))
    axes = figure.add_subplot(grid[0, 0])
    _profile(axes, spec, bounds)
    for row, panel in enumerate(spec.maps, start=1):
        axes = figure.add_subplot(grid[row, 0])
        _map(figure, axes, figure.add_subplot(grid[row, 1]), panel)
        for bound in bounds:
            axes.axvline(bound, color=PAPER, linewidth=1.5)
    # columns of a map begin at whole numbers, points of a profile stand on them
    names_below(axes, list(spec.names), from_edge=0.5 if spec.maps else 0.0)
    axes.tick_params(length=0)
    return figure


def _profile(axes: Axes, spec: NetworkMap, bounds: list[int]) -> None:
    curves(axes, spec.profile)
    axes.set_title(spec.profile.title)
    axes.set_ylabel(spec.profile.unit)
    axes.set_xlim(-0.5, len(spec.names) - 0.5)
    axes.set_xticks([])
    for bound in bounds:
        axes.axvline(bound - 0.5, color=MUTED, linewidth=0.5, alpha=0.6)


def _map(figure: Figure, axes: Axes, bar: Axes, panel: ChannelMap) -> None:
    picture = np.stack([_stretch(column) for column in panel.columns], axis=1)
    known = picture[np.isfinite(picture)]
    low, high = panel.limits or robust(known, panel.centre)
    beyond = bool(np.any(known < low)), bool(np.any(known > high))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        beyond
    ]
    # as seaborn's heatmap draws it
    colors = axes.pcolormesh(
        np.ma.masked_invalid(picture), cmap=palette(panel.colours), vmin=low, vmax=high, rasterized=True
    )
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set(xlim=(0, picture.shape[1]), ylim=(HEIGHT, 0), xticks=[], yticks=[])
    scale = figure.colorbar(colors, bar, axes, extend=extend)
    scale.outline.set_linewidth(0)
    scale.solids.set_rasterized(True)  # type: ignore[union-attr]
    bar.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    note = "" if extend == "neither" else "  (colors end at the 2nd and 98th percentile)"
    axes.set_title(panel.title + note)
    axes.set_ylabel("")


def _stretch(column: Array) -> Array:
    """One site's channels, stretched or thinned to HEIGHT rows by nearest rank."""
    return column[(np.arange(HEIGHT) * len(column)) // HEIGHT]


def robust(values: Array, centre: float | None) -> tuple[float, float]:
    """Limits that a few outliers cannot take over; symmetric about `centre` where there is one."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.quantile(values, (0.02, 0.98))
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        return centre - reach, centre + reach
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)
