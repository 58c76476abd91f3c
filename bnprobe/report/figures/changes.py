"""How one layer's channels differ between two sides: densities over each other, and every channel on a plane."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.report.colours import EXPECTED, MEASURED, MUTED
from bnprobe.report.figures.specs import LayerChange, Plane, Ridges
from bnprobe.report.numbers import number
from bnprobe.stats.moments import Array

ROW, HIGHEST = 2.4, 2.6
"""Heights in rows: of a density of 1, and beyond which a ridge is cut."""

MOST_POINTS = 200
"""Points above which a plane is stored as an image."""


def layer(spec: LayerChange) -> Figure:
    """The ridges from left to right, then the plane."""
    rows = max((len(ridges.labels) for ridges in spec.ridges), default=0)
    height = max(0.9 + 0.42 * rows, 2.8)
    figure = Figure(figsize=(10, height))
    figure.set_layout_engine("none")
    grid = figure.add_gridspec(
        1,
        len(spec.ridges) + 1,
        wspace=0.22,
        left=0.09,
        right=0.97,
        bottom=0.5 / height,
        top=1 - 0.3 / height,
    )
    for place, ridges in enumerate(spec.ridges):
        _ridges(figure.add_subplot(grid[0, place]), ridges, labelled=place == 0)
    _plane(figure.add_subplot(grid[0, len(spec.ridges)]), spec.plane)
    return figure


def _ridges(axes: Axes, spec: Ridges, labelled: bool) -> None:
    n = len(spec.labels)
    for level, (filled, line) in enumerate(zip(spec.filled, spec.lines, strict=True)):
        _ridge(axes, level, n, spec.x, filled, line)
    axes.set_yticks(range(n), spec.labels[::-1] if labelled else [""] * n)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.25, n + 1.8)
    axes.spines["left"].set_visible(False)
    axes.set_title(spec.title)
    axes.set_xlabel(spec.x_label)
    axes.set_xlim(np.floor(spec.x[0]), np.ceil(spec.x[-1]))


def _ridge(axes: Axes, level: int, n: int, x: Array, filled: Array, line: Array) -> None:
    """One channel's densities; lower ridges stand in front."""
    base = n - 1 - level
    axes.fill_between(
        x,
        base,
        base + np.minimum(ROW * filled, HIGHEST),
        color=MEASURED,
        alpha=0.6,
        linewidth=0,
        zorder=2 + level,
    )
    axes.plot(x, base + np.minimum(ROW * line, HIGHEST), color=EXPECTED, linewidth=1.1, zorder=2.5 + level)


def _plane(axes: Axes, spec: Plane) -> None:
    known = np.isfinite(spec.x) & np.isfinite(spec.y)
    for mask, colour in ((known & ~spec.strong, MUTED), (known & spec.strong, MEASURED)):
        axes.scatter(
            spec.x[mask],
            spec.y[mask],
            s=16,
            color=colour,
            linewidths=0,
            alpha=0.8,
            rasterized=len(spec.x) > MOST_POINTS,
        )
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_title(spec.title)
    axes.set_xlabel(spec.x_label)
    axes.set_ylabel(spec.y_label)
    for line in (axes.xaxis, axes.yaxis):
        line.set_major_formatter(lambda value, _: number(value, 2))
