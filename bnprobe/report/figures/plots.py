"""Pairs of axes in rows of two, each of any quantities: what experiments and articles draw."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnprobe.report.colours import MUTED
from bnprobe.report.figures.axes import ratio_ticks
from bnprobe.report.figures.specs import Curve, Plot, Plots

DASH = (0, (4, 2))
ACROSS = 62
"""Letters of a legend that fit beside each other."""
MOST_DOTS = 600
"""Dots above which they are stored as an image."""


def plots(spec: Plots) -> Figure:
    """All of them in one figure."""
    columns = 1 if spec.narrow else min(len(spec.plots), 2)
    rows = -(-len(spec.plots) // columns)
    figure = Figure(figsize=(4.2, 3.4 * rows) if spec.narrow else (10, 3.3 * rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(spec.plots) :]:
        axes.set_axis_off()
    for axes, plot in zip(grid.flat, spec.plots, strict=False):
        _plot(axes, plot)
    _legends(figure, list(grid.flat[: len(spec.plots)]))
    return figure


def _legends(figure: Figure, plots: list[Axes]) -> None:
    """One above all where they show the same curves; else one in each that has names for its own."""
    named = [axes.get_legend_handles_labels() for axes in plots]
    if len(named) > 1 and named[0][1] and all(labels == named[0][1] for _, labels in named):
        figure.legend(*named[0], loc="outside upper left", ncols=len(named[0][1]), frameon=False, fontsize=9)
        return
    for axes, (handles, labels) in zip(plots, named, strict=True):
        if labels:
            _above(axes, handles, labels)


def _above(axes: Axes, handles: list[Artist], labels: list[str]) -> None:
    """A legend between the title and the axes, in as many columns as fit, so that it covers no curve."""
    columns = max(1, min(len(labels), int(ACROSS / (max(map(len, labels)) + 6))))
    rows = -(-len(labels) // columns)
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=8,
        borderpad=0,
        columnspacing=1.2,
        borderaxespad=0.3,
    )
    axes.set_title(axes.get_title("left"), pad=8 + 11.5 * rows)


def _plot(axes: Axes, plot: Plot) -> None:
    for curve in plot.curves:
        _curve(axes, curve)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    axes.set_ylim(*plot.limits)
    if plot.diagonal:
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=0)
    if plot.log_x:
        ratio_ticks(axes, "x")
    if plot.log_y:
        ratio_ticks(axes)
    if plot.ticks:
        axes.set_xticks(plot.ticks, [f"{tick:g}" for tick in plot.ticks])
        axes.set_xticks([], minor=True)
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)


def _curve(axes: Axes, curve: Curve) -> None:
    axes.plot(
        curve.x,
        np.where(np.isfinite(curve.y), curve.y, np.nan),
        color=curve.colour,
        label=curve.label or None,
        linestyle="none" if curve.dots else DASH if curve.dashed else "-",
        marker=None if curve.dashed else "o",
        markersize=3.2,
        markeredgewidth=0,
        linewidth=1.0 if curve.dashed else 1.4,
        alpha=0.6 if curve.dots else 1.0,
        rasterized=curve.dots and len(curve.y) > MOST_DOTS,
    )
