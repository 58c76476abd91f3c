"""The forms of picture that chapters share: panels over depth, clouds of points, patches of color.

Layouts are fixed: the automatic one costs as much as the drawing.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from bnprobe.report.colours import EXPECTED, FAINT, INK, MUTED, PAPER
from bnprobe.report.figures.axes import MOST_NAMES, names_below, ratio_ticks, stage_bounds
from bnprobe.report.figures.specs import ByDepth, Cloud, Clouds, Curves, Line, Stack, Swatches
from bnprobe.stats.moments import Array

WIDTH, LEFT, RIGHT = 10.0, 0.72, 0.8
"""Inches; on the right is room for what levels are called."""

NARROW, NARROW_LEFT, NARROW_RIGHT, NARROW_NAMES = 4.0, 0.55, 0.1, 22
"""The same for a picture on a phone, and how many names stand below it."""

UNIT, DIGIT = 0.29, 0.081
"""Inches left of a narrow picture's axes that the unit takes, and each letter of a tick label."""

TALL, GAP, LETTER = 1.25, 0.4, 0.055
"""Inches: height of a panel, room above it for its title, and room below for one letter of a name."""

BEHIND = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
"""Paper behind words that stand among lines."""

MOST_COUNTED = 3000
"""Points above which they are counted in hexagons: as points they would be a slab."""

MOST_MARKED = 300
"""Norms up to which a line has a dot at each: more of them hide the line."""

MOST_POINTS = 600
"""Points above which a cloud is stored as an image: thousands of circles cost more than they show."""


def by_depth(spec: ByDepth) -> Figure:
    """Panels one below the other."""
    width, left, right = (NARROW, NARROW_LEFT, _beside(spec)) if spec.narrow else (WIDTH, LEFT, RIGHT)
    below = 0.2 + LETTER * max(map(len, spec.names))
    height = below + len(spec.panels) * (TALL + GAP)
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("none")
    bounds = [bound - 0.5 for bound in stage_bounds(list(spec.paths))]
    for row, panel in enumerate(spec.panels):
        bottom = height - (row + 1) * (TALL + GAP)
        box = (left / width, bottom / height, 1 - (left + right) / width, TALL / height)
        axes = figure.add_axes(box)
        if isinstance(panel, Stack):
            _stack(axes, panel)
        else:
            curves(axes, panel)
        whole_height = axes.get_xaxis_transform()
        axes.vlines(bounds, 0, 1, color=MUTED, linewidth=0.5, alpha=0.6, zorder=0, transform=whole_height)
        axes.set_title(panel.title)
        axes.set_ylabel(panel.unit)
        axes.set_xlim(-0.5, len(spec.names) - 0.5)
        axes.set_xticks([])
        if spec.narrow:
            _make_room(axes)
    names_below(axes, list(spec.names), most=NARROW_NAMES if spec.narrow else MOST_NAMES)
    return figure


def _make_room(axes: Axes) -> None:
    """Moves the left end of a narrow picture's axes so far that the longest tick label leaves room for the unit."""
    low, high = sorted(axes.get_ylim())
    ticks = [float(tick) for tick in axes.get_yticks()]
    labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
    longest = max(
        (len(label) for tick, label in zip(ticks, labels, strict=True) if low <= tick <= high), default=0
    )
    box = axes.get_position()
    left = max(NARROW_LEFT, UNIT + DIGIT * longest) / NARROW
    axes.set_position((left, box.y0, box.x1 - left, box.height))


def _beside(spec: ByDepth) -> float:
    """Room right of a narrow picture's axes."""
    named = any(words for panel in spec.panels if isinstance(panel, Curves) for _, words in panel.levels)
    return RIGHT if named else NARROW_RIGHT


def _legend(axes: Axes, n: int) -> None:
    # a narrow picture has no title in its way, but less room
    narrow = _is_narrow(axes)
    axes.legend(
        frameon=False,
        loc="lower left" if narrow else "lower right",
        bbox_to_anchor=(-0.1 if narrow else 1, 1),
        ncols=-(-n // 2) if narrow and n > 2 else n,
        fontsize=7.5 if narrow else None,
        borderpad=0,
        handlelength=1.4,
        columnspacing=1.2,
    )


def curves(axes: Axes, panel: Curves) -> None:
    """The lines of a panel with what they are to be compared with; its title and x axis are its picture's."""
    for line in panel.lines:
        _line(axes, line)
    if panel.band is not None:
        x = np.arange(len(panel.band.low))
        axes.fill_between(
            x,
            panel.band.low,
            panel.band.high,
            color=panel.band.colour,
            alpha=0.22,
            linewidth=0,
            label=panel.band.label or None,
        )
    if panel.expected is not None:
        axes.axhline(panel.expected, color=EXPECTED, linewidth=1)
    for value, _ in panel.levels:
        axes.axhline(value, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    if panel.logarithmic and _varies(panel.lines):
        ratio_ticks(axes)
    axes.set_ylim(*panel.limits)
    low, high = axes.get_ylim()
    for value, words in panel.levels:
        if low <= value <= high and words:
            inside = _room_beside(axes) < RIGHT - 0.01
            axes.annotate(
                words,
                (1, value),
                (-2, 1) if inside else (4, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="bottom" if inside else "center",
                fontsize=8,
                color=MUTED,
            )
    _marks(axes, panel.marks)
    labels = [one.label for one in (*panel.lines, panel.band) if one is not None and one.label]
    if labels:
        _legend(axes, len(labels))


def _is_narrow(axes: Axes) -> bool:
    """Whether the picture is one for a phone."""
    return _width(axes) < WIDTH


def _room_beside(axes: Axes) -> float:
    """Inches right of the axes."""
    return float((1 - axes.get_position().x1) * _width(axes))


def _width(axes: Axes) -> float:
    """Of the whole picture, in inches."""
    return axes.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]


def _varies(lines: tuple[Line, ...]) -> bool:
    """Whether there are positive values of more than one size: a logarithm of one size has no axis."""
    values = np.concatenate([line.values for line in lines])
    sizes = values[np.isfinite(values) & (values > 0)]
    return bool(sizes.size) and bool(sizes.max() > 1.01 * sizes.min())


def _line(axes: Axes, line: Line) -> None:
    values = np.where(np.isfinite(line.values), line.values, np.nan)
    axes.plot(
        values,
        color=line.colour,
        label=line.label or None,
        marker=None if line.dashed or len(values) > MOST_MARKED else "o",
        markersize=3.5,
        markeredgewidth=0,
        linewidth=1.0 if line.dashed else 1.4,
        linestyle=(0, (4, 2)) if line.dashed else "-",
    )


def _marks(axes: Axes, marks: tuple[tuple[int, str], ...]) -> None:
    """Words on vertical lines, on the side where there is room."""
    low, high = axes.get_xlim()
    for row, (position, words) in enumerate(sorted(marks)):
        axes.axvline(position, color=INK, linewidth=0.8, zorder=0)
        late = position > (low + high) / 2
        axes.annotate(
            words,
            (position, 1),
            # one below the other, because marks may stand close together
            (-4 if late else 4, -1 - 11 * row),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if late else "left",
            va="top",
            fontsize=8,
            bbox=BEHIND,
        )


def _stack(axes: Axes, panel: Stack) -> None:
    edges = np.arange(len(panel.parts[0].values) + 1) - 0.5
    below = np.zeros(len(edges) - 1)
    for part in panel.parts:
        top = below + np.nan_to_num(part.values)
        axes.fill_between(
            edges,
            _step(below),
            _step(top),
            step="post",
            color=part.colour,
            alpha=FAINT if part.faint else None,
            linewidth=0,
            label=part.label,
        )
        below = top
    if len(edges) <= MOST_NAMES:
        axes.vlines(edges[1:-1], 0, 1, color=PAPER, linewidth=0.8)
    for line in panel.lines:
        _line(axes, line)
    axes.set_ylim(0, 1)
    _legend(axes, len(panel.parts) + sum(bool(line.label) for line in panel.lines))


def _step(values: Array) -> Array:
    """Heights for a step that ends at the last edge."""
    return np.append(values, values[-1:])


def clouds(spec: Clouds) -> Figure:
    """Clouds side by side, each a square with its diagonal."""
    side, gap = 3.4, 1.1
    height = side + 0.85
    width = LEFT + side + 0.1 if spec.narrow else WIDTH
    figure = Figure(figsize=(width, height), dpi=160)
    figure.set_layout_engine("none")
    for place, panel in enumerate(spec.clouds):
        left = LEFT + place * (side + gap)
        axes = figure.add_axes((left / width, 0.5 / height, side / width, side / height))
        _cloud(axes, panel)
    return figure


def _cloud(axes: Axes, panel: Cloud) -> None:
    known = np.isfinite(panel.x) & np.isfinite(panel.y)
    x, y = panel.x[known], panel.y[known]
    low, high = panel.limits or _span(x, y)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=0)
    many = len(x) > MOST_POINTS
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    if len(x) > MOST_COUNTED:
        _hexagons(axes, x, y, (low, high), panel.colour)
    else:
        axes.scatter(x, y, s=9 if many else 16, color=panel.colour, alpha=0.55, linewidth=0, rasterized=many)
    pad = 0.02 * (high - low)
    axes.set_xlim(low - pad, high + pad)
    axes.set_ylim(low - pad, high + pad)
    axes.set_title(panel.title)


def _hexagons(axes: Axes, x: Array, y: Array, limits: tuple[float, float], colour: str) -> None:
    """How many points there are in each hexagon: the more, the less the page shines through."""
    shades = LinearSegmentedColormap.from_list("counts", [to_rgba(colour, 0.15), to_rgba(colour, 1.0)])
    axes.hexbin(
        x,
        y,
        gridsize=48,
        bins="log",
        mincnt=1,
        cmap=shades,
        extent=(*limits, *limits),
        linewidths=0,
        rasterized=True,
    )


def _span(x: Array, y: Array) -> tuple[float, float]:
    """Limits that hold all but one point in 200."""
    both = np.concatenate([x, y])
    if not both.size:
        return 0.0, 1.0
    low, high = np.quantile(both, (0.0025, 0.9975))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def swatches(spec: Swatches) -> Figure:
    """Patches of color in a row, their words to the right of each."""
    width = NARROW if len(spec.patches) == 1 else WIDTH
    figure = Figure(figsize=(width, 1.0))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    step = width / len(spec.patches)
    for place, patch in enumerate(spec.patches):
        rgb = tuple(min(max(value, 0.0), 1.0) for value in patch.rgb)
        axes.fill_between(
            [place * step + 0.05, place * step + 0.95], 0.05, 0.95, color=rgb, edgecolor=MUTED, linewidth=0.6
        )
        axes.text(place * step + 1.1, 0.5, patch.label, va="center", fontsize=9)
    return figure
