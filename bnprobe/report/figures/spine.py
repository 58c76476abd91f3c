"""The spine: lanes over depth on fixed scales, lying for a wide page and standing for a phone."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from bnprobe.report.colours import CRITICAL, EXPECTED, INK, MEASURED, MUTED, PAPER, WARNING
from bnprobe.report.figures.axes import names_below, stage_bounds
from bnprobe.report.figures.specs import Lane, Spine
from bnprobe.stats.moments import Array

WIDTH, LEFT, RIGHT = 10.0, 0.55, 0.75
"""Inches, lying."""
TALL, GAP, LETTER, ARCS, STAGES = 0.8, 0.32, 0.055, 0.3, 0.25
"""Inches, lying: a lane, the room above it for its title, room below for one letter of a name, the arcs, and the stages."""
MOST_LABELS = 40
"""Places up to which numbers stand at their bars."""

PHONE, NAMES, ROW, HEAD = 3.5, 1.12, 0.23, 0.5
"""Inches, standing: the whole width, that of the names, the height of a place, and the room for titles."""


def depth_axis(spec: Spine) -> tuple[float, float]:
    """Where its places begin and end, as shares of the picture: from the left, or upright from above."""
    if spec.upright:
        return HEAD / (HEAD + ROW * len(spec.names)), 1.0
    return LEFT / WIDTH, 1 - RIGHT / WIDTH


def spine(spec: Spine) -> Figure:
    """The picture; its layout is fixed."""
    return _standing(spec) if spec.upright else _lying(spec)


def _lying(spec: Spine) -> Figure:
    stages = STAGES * bool(spec.stages)
    below = 0.15 + LETTER * max(map(len, spec.names)) + stages
    arcs = ARCS * bool(spec.arcs)
    height = arcs + len(spec.lanes) * (TALL + GAP) + below
    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine("none")
    wide = 1 - (LEFT + RIGHT) / WIDTH
    if spec.arcs:
        _arcs(figure.add_axes((LEFT / WIDTH, 1 - arcs / height, wide, arcs / height)), spec)
    for row, lane in enumerate(spec.lanes):
        bottom = height - arcs - (row + 1) * (TALL + GAP)
        axes = figure.add_axes((LEFT / WIDTH, bottom / height, wide, TALL / height))
        _lane(axes, lane, spec, upright=False)
        axes.set_title(f"{lane.title}{f' ({lane.unit})' * bool(lane.unit)}")
    names_below(axes, list(spec.names))
    if spec.stages:
        _stages(figure.add_axes((LEFT / WIDTH, 0, wide, stages / height)), spec)
    return figure


def _stages(axes: Axes, spec: Spine) -> None:
    """Brackets below the names, with the words that these share."""
    axes.set_axis_off()
    axes.set_xlim(-0.5, len(spec.names) - 0.5)
    axes.set_ylim(0, 1)
    for first, last, words in spec.stages:
        ends = first - 0.35, last + 0.35
        axes.plot([ends[0], *ends, ends[1]], [0.95, 0.75, 0.75, 0.95], color=MUTED, linewidth=0.8)
        axes.text((first + last) / 2, 0.6, words, ha="center", va="top", fontsize=8.5)


def _standing(spec: Spine) -> Figure:
    height = HEAD + ROW * len(spec.names)
    figure = Figure(figsize=(PHONE, height))
    figure.set_layout_engine("none")
    each = (PHONE - NAMES) / len(spec.lanes)
    for column, lane in enumerate(spec.lanes):
        box = ((NAMES + column * each + 0.06) / PHONE, 0, (each - 0.12) / PHONE, 1 - HEAD / height)
        axes = figure.add_axes(box)
        _lane(axes, lane, spec, upright=True)
        title = _wrapped(lane.short or lane.title, int(each / 0.062))
        axes.text(
            0,
            1 + 0.16 / (height - HEAD),
            title,
            transform=axes.transAxes,
            fontsize=7.5,
            va="bottom",
            linespacing=1.1,
        )
        if not column:
            for place, name in enumerate(spec.names):
                axes.annotate(
                    name,
                    (0, place),
                    (-6, 0),
                    xycoords=axes.get_yaxis_transform(),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=7.5,
                )
    return figure


def _lane(axes: Axes, lane: Lane, spec: Spine, upright: bool) -> None:
    low, high = lane.limits
    at = np.arange(len(lane.values))
    fill = axes.fill_betweenx if upright else axes.fill_between
    across = axes.axvline if upright else axes.axhline
    along = axes.axhline if upright else axes.axvline
    for i, (below, above) in enumerate(lane.bands):
        alpha = 0.18 + 0.2 * i
        fill(
            at, np.clip(below, low, high), np.clip(above, low, high), color=MEASURED, alpha=alpha, linewidth=0
        )
    shade = axes.axvspan if upright else axes.axhspan
    for i, (value, _) in enumerate(lane.levels if lane.zones else ()):
        ends = [*(further for further, _ in lane.levels[i + 1 :]), _padded(lane)[1]]
        shade(value, ends[0], color=CRITICAL if i else WARNING, alpha=0.13, linewidth=0, zorder=-1)
    for value, words in lane.levels:
        across(
            value,
            color=EXPECTED if words == "untrained" else MUTED,
            linewidth=0.8,
            linestyle=(0, (4, 3)),
            zorder=0,
        )
        if not upright:
            axes.annotate(
                words,
                (1, value),
                (4, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=MUTED,
            )
    for bound in stage_bounds(list(spec.paths)):
        along(bound - 0.5, color=MUTED, linewidth=0.5, alpha=0.6, zorder=0)
    shown = np.clip(lane.values, low, high)
    if lane.bars:
        (axes.barh if upright else axes.bar)(at, shown, 0.7, color=INK)
        _labels(axes, lane, shown, upright)
    else:
        _points(axes, lane, shown, upright)
        if lane.other is not None:
            _other(axes, np.clip(lane.other, low, high), upright)
    _marks(axes, lane, shown, upright)
    end = (-0.5, len(at) - 0.5)
    ticks = (low, *(value for value, _ in lane.levels if upright), high)
    labels = [f"{tick:g}" for tick in ticks]
    if (lane.values > high).any():
        labels[-1] = f"≥{labels[-1]}"
    if upright:
        if lane.logarithmic:
            axes.set_xscale("log")
        axes.set_ylim(end[::-1])
        axes.set_xlim(_padded(lane))
        axes.set_yticks([])
        axes.xaxis.tick_top()
        axes.set_xticks(ticks, labels, fontsize=6.5)
        axes.set_xticks([], minor=True)
        # labels at the ends stay within their lane, and so apart from those of the next
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
        axes.tick_params(length=0, pad=1)
        axes.spines["bottom"].set_visible(False)
    else:
        if lane.logarithmic:
            axes.set_yscale("log")
        axes.set_xlim(end)
        axes.set_ylim(_padded(lane))
        axes.set_xticks([])
        axes.set_yticks(ticks, labels)
        axes.set_yticks([], minor=True)


def _padded(lane: Lane) -> tuple[float, float]:
    """The limits with a little air at both ends, so that points on them are drawn whole."""
    low, high = lane.limits
    if lane.logarithmic:
        air = (high / low) ** 0.04
        return low / air, high * air
    return low - 0.04 * (high - low), high + 0.04 * (high - low)


def _points(axes: Axes, lane: Lane, shown: Array, upright: bool) -> None:
    at = np.arange(len(shown))
    strong = np.array(lane.strong or [True] * len(at), dtype=bool)
    x, y = (shown, at) if upright else (at, shown)
    axes.plot(x, y, color=MEASURED, linewidth=1.0, alpha=0.7)
    for mask, face in ((strong, MEASURED), (~strong, PAPER)):
        if mask.any():
            axes.plot(
                x[mask],
                y[mask],
                linestyle="none",
                marker="o",
                markersize=4.2 if len(at) <= 40 else 3.0,
                markerfacecolor=face,
                markeredgecolor=MEASURED,
                markeredgewidth=1.0,
            )


def _other(axes: Axes, shown: Array, upright: bool) -> None:
    """A second side over the first: in another color, and of another shape for those who do not see it."""
    at = np.arange(len(shown))
    x, y = (shown, at) if upright else (at, shown)
    size = 4.0 if len(at) <= 40 else 2.8
    axes.plot(x, y, color=EXPECTED, linewidth=1.0, marker="D", markersize=size, markerfacecolor="none")


def _labels(axes: Axes, lane: Lane, shown: Array, upright: bool) -> None:
    """Counts at the end of their bars, inside where the bar is long."""
    for place, words in enumerate(lane.labels):
        if not words or len(lane.labels) > MOST_LABELS:
            continue
        inside = shown[place] > 0.7 * lane.limits[1]
        offset = (-3 if inside else 3) if upright else (-2 if inside else 2)
        axes.annotate(
            words,
            (shown[place], place) if upright else (place, shown[place]),
            (offset, 0) if upright else (0, offset),
            textcoords="offset points",
            ha=("right" if inside else "left") if upright else "center",
            va="center" if upright else ("top" if inside else "bottom"),
            color=PAPER if inside else INK,
            fontsize=7,
        )


def _marks(axes: Axes, lane: Lane, shown: Array, upright: bool) -> None:
    """Words at single points, turned away from the end of the scale; on a phone there is no room for them."""
    if upright:
        return
    n = len(shown)
    for place, words in lane.marks:
        high = shown[place] > 0.6 * lane.limits[1]
        axes.annotate(
            words,
            (place, shown[place]),
            (0, -6 if high else 6),
            textcoords="offset points",
            ha="left" if place < 0.05 * n else "right" if place > 0.95 * n else "center",
            va="top" if high else "bottom",
            fontsize=8,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
        )


def _arcs(axes: Axes, spec: Spine) -> None:
    """Residual connections above the line of norms."""
    n = len(spec.names)
    axes.set_axis_off()
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(0, 1)
    axes.plot(
        np.arange(n), np.full(n, 0.1), color=MUTED, linewidth=1, marker="o", markersize=3, markeredgewidth=0
    )
    longest = max(end - start for start, end in spec.arcs)
    for start, end in spec.arcs:
        top = 0.1 + 0.85 * math.sqrt((end - start) / longest)
        path = Path([(start, 0.1), (start, top), (end, top), (end, 0.1)], [Path.MOVETO, *[Path.CURVE4] * 3])
        axes.add_patch(PathPatch(path, facecolor="none", edgecolor=MUTED, linewidth=0.9))


def _wrapped(text: str, width: int) -> str:
    """Words in lines of `width` letters at most."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
