"""Figures for papers: one column of the tables by depth, in one layer, or against another, drawn by seaborn."""

from __future__ import annotations

import re
import warnings
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnprobe.errors import BnprobeError, NotDefined
from bnprobe.measures import Tables, glossary
from bnprobe.report.colours import EXPECTED, MEASURED, MUTED, ROLES
from bnprobe.report.figures.axes import MOST_NAMES, stage_bounds
from bnprobe.report.figures.from_tables import site_names
from bnprobe.report.figures.svg import seaborn, style
from bnprobe.report.numbers import number

LEVELS = {"shift": 0.0, "scale_ratio": 1.0, "var_ratio_median": 1.0, "shift_rms": 0.0}
"""What a measure is where the data match the running statistics; drawn in the color of what is expected."""


WIDTHS = {1: 3.4, 2: 7.0}
"""Inches of one column and of both in a paper of two."""
HEIGHT = {1: 2.6, 2: 3.2}
"""Inches of the same."""
ROOM, LETTER, NAME = 0.8, 0.53, 0.14
"""Inches beside the axes; the mean width of a letter, of its height; inches between names that do not touch."""


def plot(
    tables: Tables, y: str, x: str | None, layer: str | None, ax: Axes | None, columns: int | None
) -> Axes:
    """See `Report.plot`."""
    if columns is not None and columns not in WIDTHS:
        raise BnprobeError(
            f"columns={columns!r} is no width of a figure. Pass 1 or 2, of a page of two columns."
        )
    if columns is not None and ax is not None:
        raise BnprobeError("ax has a width already. Pass either ax or columns.")
    with style(f"plot {y}"):
        # seaborn 0.13 asks matplotlib 3.11 for boxes in words that go in 3.13
        warnings.simplefilter("ignore", DeprecationWarning)
        axes = _axes(tables, layer is None and x is None, columns) if ax is None else ax
        if x is not None:
            _against(axes, _channels(tables, layer), x, y)
        elif layer is not None:
            _distribution(axes, _channels(tables, layer), y)
        elif y in tables.channels:
            _channels_by_depth(axes, tables, y)
        else:
            _layers_by_depth(axes, tables, y)
        axes.set_title(_wrapped(axes, _title(tables, y, x, layer)))
    return axes


def _axes(tables: Tables, by_depth: bool, columns: int | None) -> Axes:
    import matplotlib.pyplot as plt

    width = min(max(4.0, 0.2 * len(tables.layers)), 12.0) if by_depth else 4.5
    size = (width, 3.4) if columns is None else (WIDTHS[columns], HEIGHT[columns])
    axes: Axes = plt.subplots(figsize=size)[1]
    return axes


def _width(axes: Axes) -> float:
    """Inches of the axes, about: what stands beside them is laid out when they are drawn."""
    figure, place = axes.get_figure(root=True), axes.get_subplotspec()
    if figure is None:
        return 1.0
    share = 1.0 if place is None else len(place.colspan) / place.get_gridspec().ncols
    return max(float(figure.get_figwidth()) * share - ROOM, 1.0)


def _wrapped(axes: Axes, title: str) -> str:
    """The title in lines that are no longer than the axes are wide."""
    size = float(axes.title.get_fontsize()) / 72
    return "\n".join(wrap(title, max(int(_width(axes) / (LETTER * size)), 12)))


def _title(tables: Tables, y: str, x: str | None, layer: str | None) -> str:
    if x is not None:
        return layer or f"{len(tables.channels):,} channels"
    meaning = next(column.meaning for column in glossary() if column.name == y)
    return layer or re.split(r"[:;.]\s", f"{meaning} ")[0]


def _channels(tables: Tables, layer: str | None) -> pd.DataFrame:
    if layer is None:
        return tables.channels
    mine = tables.channels[tables.channels["layer"] == layer]
    if mine.empty:
        raise NotDefined(f"no layer is called {layer!r}. report.layers['layer'] lists them.")
    return mine


def known(tables: Tables, name: str, needs_channels: bool) -> None:
    """Raise NotDefined, with what is near, unless the column holds something that can be drawn."""
    frames = (tables.channels,) if needs_channels else (tables.channels, tables.layers)
    for frame in frames:
        if name in frame and (name == "role" or pd.api.types.is_numeric_dtype(frame[name])):
            if frame[name].notna().any():
                return
            raise NotDefined(
                f"{name} is not defined for any norm of this recording; see the glossary for why."
            )
    from difflib import get_close_matches

    names = [str(column) for frame in frames for column in frame]
    near = get_close_matches(name, names, 3, 0.7)
    raise NotDefined(
        f"there is no column {name!r} to plot. "
        + (f"Did you mean {' or '.join(near)}?" if near else "report.channels and report.layers hold them.")
    )


def _label(name: str) -> str:
    """The column's name with its unit."""
    unit = next((column.unit for column in glossary() if column.name == name), "")
    words = {"gamma": "γ", "beta": "β"}.get(name, name)
    return f"{words} ({unit})" if unit else words


def _channels_by_depth(axes: Axes, tables: Tables, y: str) -> None:
    """A box per layer over its channels; roles as shares."""
    if y == "role":
        return _roles_by_depth(axes, tables)
    layers, channels = tables.layers, tables.channels
    position = np.repeat(np.arange(len(layers)), layers["n_channels"].to_numpy(dtype=int))
    seaborn().boxplot(
        x=position,
        y=channels[y].to_numpy(dtype=float),
        ax=axes,
        color=MEASURED,
        native_scale=True,
        width=0.7,
        linewidth=0.8,
        fliersize=1.5,
        linecolor=MUTED,
    )
    _by_depth(axes, layers, y)
    return None


def _roles_by_depth(axes: Axes, tables: Tables) -> None:
    total = tables.layers["n_channels"].to_numpy(dtype=float)
    below = np.zeros(len(total))
    for role, colour in ROLES.items():
        part = tables.layers[f"n_{role}"].to_numpy(dtype=float) / total
        if part.any():
            axes.bar(np.arange(len(total)), part, 0.85, bottom=below, color=colour, label=role)
        below += part
    axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    _by_depth(axes, tables.layers, "role")
    axes.set_ylabel("share of channels")


def _layers_by_depth(axes: Axes, tables: Tables, y: str) -> None:
    values = tables.layers[y].to_numpy(dtype=float)
    seaborn().lineplot(x=np.arange(len(values)), y=values, ax=axes, color=MEASURED, marker="o", markersize=4)
    _by_depth(axes, tables.layers, y)


def _by_depth(axes: Axes, layers: pd.DataFrame, y: str) -> None:
    """Names of layers, lines between stages, and the level of reference."""
    names = site_names(layers)
    most = min(MOST_NAMES, max(int(_width(axes) / NAME), 1))
    shown = range(0, len(names), -(-len(names) // most))
    axes.set_xticks(list(shown), [names[i] for i in shown], rotation=90, fontsize=7.5)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_xlabel("")
    axes.set_ylabel(_label(y))
    for bound in stage_bounds(list(layers["layer"])):
        axes.axvline(bound - 0.5, color=MUTED, linewidth=0.5, alpha=0.6, zorder=0)
    if y in LEVELS:
        axes.axhline(LEVELS[y], color=EXPECTED, linewidth=1)


def _distribution(axes: Axes, channels: pd.DataFrame, y: str) -> None:
    """How the channels of one layer are spread."""
    seaborn().histplot(x=channels[y].to_numpy(), ax=axes, color=MEASURED, edgecolor="none", alpha=0.75)
    if y in LEVELS:
        axes.axvline(LEVELS[y], color=EXPECTED, linewidth=1)
    axes.set_xlabel(_label(y))
    axes.set_ylabel("channels")
    axes.yaxis.set_major_formatter(lambda value, _: number(value))


def _against(axes: Axes, channels: pd.DataFrame, x: str, y: str) -> None:
    """One measure against another, colored by how often the channel fires where that is known."""
    fires: Any = channels["fires"] if channels["fires"].notna().any() else None
    seaborn().scatterplot(
        x=channels[x].to_numpy(dtype=float),
        y=channels[y].to_numpy(dtype=float),
        hue=None if fires is None else fires.to_numpy(dtype=float),
        hue_norm=(0, 1),
        palette=None if fires is None else "mako",
        color=MEASURED if fires is None else None,
        s=14,
        linewidth=0.2,
        edgecolor=MUTED,
        rasterized=len(channels) > 2000,
        ax=axes,
    )
    if fires is not None:
        axes.legend(title="share of y > 0", frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))
