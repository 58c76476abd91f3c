"""From tables to specs: names that stand under a picture, columns as numbers, and maps of every channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures.norm_roles import names_by_role
from bnprobe.report.colours import INK
from bnprobe.report.figures.names import short_names
from bnprobe.report.figures.specs import ByDepth, ChannelMap, Line, Panel
from bnprobe.report.numbers import shorten
from bnprobe.stats.moments import Array

LONGEST = 28
"""Letters of a layer's name under a picture."""


def site_names(layers: pd.DataFrame, longest: int = LONGEST) -> list[str]:
    """The name of every row of the table of layers, short enough to stand under a picture; in a transformer by role."""
    calls = [f" call {call + 1}" if call else "" for call in layers["call"]]
    return [
        name + call for name, call in zip(short_names(names_by_role(layers), longest), calls, strict=True)
    ]


def by_depth(layers: pd.DataFrame, panels: tuple[Panel, ...]) -> ByDepth:
    """Panels over the rows of the table of layers."""
    return ByDepth(tuple(site_names(layers)), tuple(layers["layer"]), panels)


def of(frame: pd.DataFrame, column: str) -> Array:
    """A column as float64."""
    return np.asarray(frame[column].to_numpy(dtype=np.float64))


def level(values: Array, label: str) -> Line:
    """A line that is there to be compared with."""
    return Line(values, label, INK, dashed=True)


@dataclass(frozen=True)
class MapColumn:
    """Which column of the channels a map shows: its title, palette and transform."""

    title: str
    column: str
    colours: str
    transform: Callable[[Array], Array] = np.asarray
    centre: float | None = None
    limits: tuple[float, float] | None = None


def channel_map(groups: Sequence[pd.DataFrame], what: MapColumn) -> ChannelMap:
    """One map of the channels of every site, one group of rows each, the largest |γ| on top."""
    columns = tuple(_by_gamma(group, what) for group in groups)
    return ChannelMap(what.title, columns, what.colours, what.centre, what.limits)


def _by_gamma(group: pd.DataFrame, what: MapColumn) -> Array:
    order = np.argsort(-group["gamma"].abs().fillna(0).to_numpy(), kind="stable")
    return np.asarray(what.transform(of(group, what.column)))[order]


def column_names(groups: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    """Sites and their numbers of channels, in a few letters each."""
    return tuple(map(_column_name, groups))


def _column_name(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    call = f" call {first['call'] + 1}" if first["call"] else ""
    return f"{shorten(first['layer'], 30)}{call} ({len(group)})"


def log2(values: Array) -> Array:
    """The logarithm of what is positive, NaN else."""
    return np.asarray(np.log2(np.where(values > 0, values, np.nan)))


def log10_root(values: Array) -> Array:
    """Of variances, the logarithm of their roots."""
    return np.asarray(log2(values) / 2 / np.log2(10))
