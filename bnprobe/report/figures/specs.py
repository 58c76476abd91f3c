"""What a chapter's picture shows, as plain values: no drawing, which `charts` does when the page needs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.report.colours import INK, SEEN
from bnprobe.report.page.blocks import Figure
from bnprobe.report.page.numbers import shorten
from bnprobe.stats.moments import Array

LONGEST = 28
"""Letters of a layer's name under a picture."""


@dataclass(frozen=True)
class Line:
    """One value per site, shape (L,), joined by a line; NaN leaves a gap. `dashed` is for controls and levels."""

    values: Array
    label: str = ""
    colour: str = SEEN
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """A low and a high value per site, shape (L,) each."""

    low: Array
    high: Array
    colour: str = SEEN


@dataclass(frozen=True)
class Curves:
    """A panel of lines over depth.

    `levels` are horizontal lines with their words; `marks` vertical ones, at the position of a site.
    """

    title: str
    lines: tuple[Line, ...]
    band: Band | None = None
    levels: tuple[tuple[float, str], ...] = ()
    marks: tuple[tuple[int, str], ...] = ()
    logarithmic: bool = False
    limits: tuple[float | None, float | None] = (None, None)
    unit: str = ""


@dataclass(frozen=True)
class Part:
    """One part of a whole per site, shape (L,); `faint` for what is not known, or is only the rest."""

    values: Array
    label: str
    colour: str
    faint: bool = False


@dataclass(frozen=True)
class Stack:
    """A panel of shares that add up to 1 at every site, with lines across them where given."""

    title: str
    parts: tuple[Part, ...]
    lines: tuple[Line, ...] = ()
    unit: str = "share"


@dataclass(frozen=True)
class Cloud:
    """A panel of points, one quantity against another, shape (C,) each; the diagonal is agreement."""

    title: str
    x: Array
    y: Array
    x_label: str
    y_label: str
    limits: tuple[float, float] | None = None
    colour: str = field(default=SEEN)


@dataclass(frozen=True)
class Swatch:
    """A patch of one colour: red, green and blue from 0 to 1, with its words."""

    rgb: tuple[float, float, float]
    label: str


Panel = Curves | Stack


def site_names(layers: pd.DataFrame) -> list[str]:
    """The name of every row of the table of layers, short enough to stand under a picture.

    Where one is too long, the parts that all paths begin with are left out.
    """
    calls = [f" call {call + 1}" if call else "" for call in layers["call"]]
    paths = [name.split(".") for name in layers["layer"]]
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*(path[:-1] for path in paths), strict=False))
    long = any(len(name) > LONGEST for name in layers["layer"])
    left_out = len(list(alike)) if long else 0
    names = [shorten(".".join(path[left_out:]), LONGEST) for path in paths]
    return [name + call for name, call in zip(names, calls, strict=True)]


def by_depth(
    name: str, alt: str, layers: pd.DataFrame, panels: tuple[Panel, ...], caption: str = ""
) -> Figure:
    """Panels one below the other over the sites in the order in which the data reach them."""
    return Figure(name, alt, partial(_depth, site_names(layers), list(layers["layer"]), panels), caption)


def _depth(names: list[str], paths: list[str], panels: tuple[Panel, ...]) -> Any:
    from bnprobe.report.figures import charts

    return charts.by_depth(names, paths, panels)


def side_by_side(name: str, alt: str, clouds: tuple[Cloud, ...], caption: str = "") -> Figure:
    """Clouds of points, one beside the other."""
    return Figure(name, alt, partial(_clouds, clouds), caption)


def _clouds(clouds: tuple[Cloud, ...]) -> Any:
    from bnprobe.report.figures import charts

    return charts.clouds(clouds)


def swatches(name: str, alt: str, patches: tuple[Swatch, ...], caption: str = "") -> Figure:
    """Patches of colour in a row."""
    return Figure(name, alt, partial(_swatches, patches), caption)


def _swatches(patches: tuple[Swatch, ...]) -> Any:
    from bnprobe.report.figures import charts

    return charts.swatches(patches)


def of(frame: pd.DataFrame, column: str) -> Array:
    """A column as float64."""
    return np.asarray(frame[column].to_numpy(dtype=np.float64))


def level(values: Array, label: str) -> Line:
    """A line that is there to be compared with."""
    return Line(values, label, INK, dashed=True)
