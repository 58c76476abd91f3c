"""How the article draws: panels of lines and points with labelled axes, in the ink and colours of the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bnprobe.report.colours import GREEN, MEMORY, MUTED, ROSE, SAND, SEEN, VIOLET
from bnprobe.report.figures.axes import ratio_ticks
from bnprobe.report.page.blocks import Figure

COLOURS = {
    "batch norm": SEEN,
    "no norm": MEMORY,
    "no norm, careful start": ROSE,
    "layer norm": VIOLET,
    "group norm": GREEN,
    "instance norm": SAND,
}
"""The same network has the same colour in every picture."""

DASH = (0, (4, 2))


@dataclass(frozen=True)
class Line:
    """Values against positions, (L,) each; `dots` leaves out the line, `dashed` is for what to compare with."""

    x: Any
    y: Any
    label: str = ""
    colour: str = SEEN
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Labels name the quantity and its unit."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[float, ...] = field(default=())
    limits: tuple[float | None, float | None] = (None, None)
    diagonal: bool = False


def picture(name: str, alt: str, panels: tuple[Panel, ...], caption: str) -> Figure:
    """Panels in rows of two."""
    return Figure(name, alt, partial(_draw, panels), caption)


def _draw(panels: tuple[Panel, ...]) -> Drawing:
    rows = -(-len(panels) // 2)
    columns = min(len(panels), 2)
    drawing = Drawing(figsize=(10, 3.3 * rows))
    grid = drawing.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        _panel(axes, panel)
    _legends(drawing, grid.flat[: len(panels)])
    return drawing


def _legends(drawing: Drawing, panels: Any) -> None:
    """One above all panels where they show the same lines; else one in each that has names for its own."""
    named = [axes.get_legend_handles_labels() for axes in panels]
    if len(named) > 1 and named[0][1] and all(labels == named[0][1] for _, labels in named):
        drawing.legend(*named[0], loc="outside upper left", ncols=len(named[0][1]), frameon=False, fontsize=9)
        return
    for axes, (handles, labels) in zip(panels, named, strict=True):
        if labels:
            axes.legend(handles, labels, frameon=False, fontsize=8)


def _panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        _line(axes, line)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    axes.set_ylim(*panel.limits)
    if panel.diagonal:
        low = min(axes.get_xlim()[0], axes.get_ylim()[0])
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=0)
    if panel.log_x:
        ratio_ticks(axes, "x")
    if panel.log_y:
        ratio_ticks(axes)
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axes.set_xticks([], minor=True)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)


def _line(axes: Axes, line: Line) -> None:
    y = np.asarray(line.y, dtype=np.float64)
    many = line.dots and len(y) > 600
    axes.plot(
        np.asarray(line.x, dtype=np.float64),
        np.where(np.isfinite(y), y, np.nan),
        color=line.colour,
        label=line.label or None,
        linestyle="none" if line.dots else DASH if line.dashed else "-",
        marker=None if line.dashed else "o",
        markersize=3.2,
        markeredgewidth=0,
        linewidth=1.0 if line.dashed else 1.4,
        alpha=0.6 if line.dots else 1.0,
        rasterized=many,
    )
