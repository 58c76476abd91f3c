"""Maps of layer by channel: a column per site, its channels stretched to one height."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnprobe.report.figures.axes import names_below
from bnprobe.report.figures.svg import seaborn
from bnprobe.report.page.numbers import shorten
from bnprobe.stats.moments import Array

HEIGHT = 64
"""Rows of a map column: layers of any width are stretched to one height, so narrow ones are not lost."""


@dataclass(frozen=True)
class MapPanel:
    """One map of the network picture: a channel column, its transform, title and colours."""

    title: str
    column: str
    colours: str
    transform: Callable[[Array], Array] = np.asarray
    centre: float | None = None
    limits: tuple[float, float] | None = None


def log2(values: Array) -> Array:
    """The logarithm of what is positive, NaN else."""
    return np.asarray(np.log2(np.where(values > 0, values, np.nan)))


def log10_root(values: Array) -> Array:
    """Of variances, the logarithm of the deviations."""
    return np.asarray(log2(values) / 2 / np.log2(10))


def draw_map(axes: Axes, bar: Axes, groups: list[pd.DataFrame], panel: MapPanel) -> None:
    """Columns are sites in the order they were reached; rows are channels, the largest |γ| on top."""
    picture = np.stack([_stretch(group, panel) for group in groups], axis=1)
    known = picture[np.isfinite(picture)]
    low, high = panel.limits or robust(known, panel.centre)
    beyond = bool(np.any(known < low)), bool(np.any(known > high))
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[
        beyond
    ]
    seaborn().heatmap(
        pd.DataFrame(picture),
        ax=axes,
        cbar_ax=bar,
        cmap=panel.colours,
        vmin=low,
        vmax=high,
        cbar_kws={"extend": extend},
        rasterized=True,
        xticklabels=False,
        yticklabels=False,
    )
    bar.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
    note = "" if extend == "neither" else "  (colours end at the 2nd and 98th percentile)"
    axes.set_title(panel.title + note)
    axes.set_ylabel("")


def _stretch(group: pd.DataFrame, panel: MapPanel) -> Array:
    """One site's channels, sorted by |γ|, stretched or thinned to HEIGHT rows by nearest rank."""
    order = np.argsort(-group["gamma"].abs().fillna(0).to_numpy(), kind="stable")
    values = np.asarray(panel.transform(group[panel.column].to_numpy(dtype=float)))[order]
    return values[(np.arange(HEIGHT) * len(values)) // HEIGHT]


def robust(values: Array, centre: float | None) -> tuple[float, float]:
    """Limits that a few outliers cannot take over; symmetric about `centre` where there is one."""
    if not values.size:
        return 0.0, 1.0
    low, high = np.quantile(values, (0.02, 0.98))
    if centre is not None:
        reach = max(abs(low - centre), abs(high - centre)) or 1.0
        return centre - reach, centre + reach
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def column_name(group: pd.DataFrame) -> str:
    """A site and its number of channels, in a few letters."""
    first = group.iloc[0]
    call = f" call {first['call'] + 1}" if first["call"] else ""
    return f"{shorten(first['layer'], 30)}{call} ({len(group)})"


def label_columns(axes: Axes, names: list[str] | None) -> None:
    """Names below the columns of a map; None where another map below has them."""
    if names is None:
        return
    names_below(axes, names, from_edge=0.5)
    axes.tick_params(length=0)
