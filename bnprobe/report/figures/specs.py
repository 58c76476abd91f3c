"""What a picture shows, as plain frozen data: a page holds specs, and `figures.draw` turns one into a drawing.

Nothing here draws. The same spec serves the page, a paper and a notebook; specs can be compared, pickled and
written as JSON. L is the number of sites of a network, C the number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnprobe.report.colours import MEASURED
from bnprobe.report.numbers import count, shorten
from bnprobe.stats.moments import Array

Mask = NDArray[np.bool_]


class Spec:
    """A value among values: equal where all fields are, arrays entry by entry, and NaN to NaN."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(mine, theirs) for mine, theirs in zip(self._values(), other._values(), strict=True))

    # arrays can be changed in place, so nothing that holds them is a key
    __hash__ = None  # type: ignore[assignment]

    def _values(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{self._says()}>"

    def _says(self) -> str:
        """What its repr says after the name of the class."""
        words = getattr(self, "title", "") or getattr(self, "label", "")
        return f" {words!r}" if words else ""


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return np.array_equal(mine, theirs, equal_nan=True)
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))
    return bool(mine == theirs)


# Panels over depth


@dataclass(frozen=True, eq=False, repr=False)
class Line(Spec):
    """One value per site, shape (L,), joined by a line; NaN leaves a gap. `dashed` is for controls and levels."""

    values: Array
    label: str = ""
    colour: str = MEASURED
    dashed: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Band(Spec):
    """A low and a high value per site, shape (L,) each."""

    low: Array
    high: Array
    colour: str = MEASURED
    label: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Curves(Spec):
    """A panel of lines over depth.

    `levels` are horizontal lines with their words; `marks` vertical ones, at the position of a site. `expected`
    is a horizontal line in the color of what is expected.
    """

    title: str
    lines: tuple[Line, ...]
    band: Band | None = None
    levels: tuple[tuple[float, str], ...] = ()
    marks: tuple[tuple[int, str], ...] = ()
    logarithmic: bool = False
    limits: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    expected: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Part(Spec):
    """One part of a whole per site, shape (L,); `faint` for what is not known, or is only the rest."""

    values: Array
    label: str
    colour: str
    faint: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Stack(Spec):
    """A panel of shares that add up to 1 at every site, with lines across them where given."""

    title: str
    parts: tuple[Part, ...]
    lines: tuple[Line, ...] = ()
    unit: str = "share"


Panel = Curves | Stack


@dataclass(frozen=True, eq=False, repr=False)
class ByDepth(Spec):
    """Panels one below the other over the sites in the order in which the data reach them.

    `names` stand below the last panel, `paths` tell where stages begin; L entries each. A `narrow` one
    can be read on a phone.
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    panels: tuple[Panel, ...]
    narrow: bool = False

    def _says(self) -> str:
        return f" of {count(len(self.names), 'site')}: {_titles(self.panels)}"


@dataclass(frozen=True, eq=False, repr=False)
class Lane(Spec):
    """One quantity of the spine per place, shape (L,), on fixed `limits`: what lies beyond is drawn at their end.

    `short` is a title for where there is little space. `bars` are drawn instead of points, with their `labels`. `bands`
    are (low, high) pairs of shape (L,) each, the widest first; `levels` and `marks` as in `Curves`, and with `zones` what
    lies beyond a level is shaded. Points that are not `strong` are hollow, where that is given. The `limits` of a
    `logarithmic` scale are positive. `words` say the value of every place. `other` are values of a second side, shape (L,).
    """

    title: str
    values: Array
    unit: str = ""
    short: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    levels: tuple[tuple[float, str], ...] = ()
    zones: bool = False
    bands: tuple[tuple[Array, Array], ...] = ()
    logarithmic: bool = False
    bars: bool = False
    labels: tuple[str, ...] = ()
    strong: tuple[bool, ...] = ()
    marks: tuple[tuple[int, str], ...] = ()
    words: tuple[str, ...] = ()
    other: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Spine(Spec):
    """The network by depth: lanes one below the other, or `upright` beside each other, where depth goes downwards.

    `names` and `paths` as in `ByDepth`; `arcs` are residual connections as (from, to), `stages` the parts of
    the paths that names leave out, as (first place, last place, words).
    """

    names: tuple[str, ...]
    paths: tuple[str, ...]
    lanes: tuple[Lane, ...]
    arcs: tuple[tuple[int, int], ...] = ()
    stages: tuple[tuple[int, int, str], ...] = ()
    upright: bool = False

    def _says(self) -> str:
        return f" of {count(len(self.names), 'place')}: {_titles(self.lanes)}"


# Maps of layer by channel


@dataclass(frozen=True, eq=False, repr=False)
class ChannelMap(Spec):
    """A map of layer by channel: `columns` are the sites' channels from top to bottom, L arrays of shape (C,).

    `colours` names a palette. It reaches as far as most values do, symmetrically about `centre` where there is
    one, or exactly over `limits`.
    """

    title: str
    columns: tuple[Array, ...]
    colours: str
    centre: float | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class NetworkMap(Spec):
    """A profile by depth above maps of layer by channel; `names` stand below, `paths` tell where stages begin."""

    names: tuple[str, ...]
    paths: tuple[str, ...]
    profile: Curves
    maps: tuple[ChannelMap, ...]

    def _says(self) -> str:
        return f" of {count(len(self.names), 'site')}: {_titles((self.profile, *self.maps))}"


# Channels against one another


@dataclass(frozen=True, eq=False, repr=False)
class Cloud(Spec):
    """A panel of points, one quantity against another, shape (C,) each; the diagonal is agreement."""

    title: str
    x: Array
    y: Array
    x_label: str
    y_label: str
    limits: tuple[float, float] | None = None
    colour: str = MEASURED


@dataclass(frozen=True, eq=False, repr=False)
class Clouds(Spec):
    """Clouds of points, one beside the other; a `narrow` picture is no wider than these."""

    clouds: tuple[Cloud, ...]
    narrow: bool = False

    def _says(self) -> str:
        return f": {_titles(self.clouds)}"


@dataclass(frozen=True, eq=False, repr=False)
class Ridges(Spec):
    """Two densities for each of some channels, one above the other: `filled` under `lines`, at the places `x`.

    `labels` name the channels from top to bottom; each density has the shape of `x`.
    """

    title: str
    labels: tuple[str, ...]
    x: Array
    filled: tuple[Array, ...]
    lines: tuple[Array, ...]
    x_label: str


@dataclass(frozen=True, eq=False, repr=False)
class Plane(Spec):
    """Points on a plane with both axes drawn, shape (C,) each; those that are not in `strong` are gray."""

    title: str
    x: Array
    y: Array
    strong: Mask
    x_label: str
    y_label: str


@dataclass(frozen=True, eq=False, repr=False)
class LayerChange(Spec):
    """How one layer's channels differ between two sides: distributions of some, and all on a plane."""

    ridges: tuple[Ridges, ...]
    plane: Plane

    def _says(self) -> str:
        return f": {_titles((*self.ridges, self.plane))}"


# One channel


@dataclass(frozen=True, eq=False, repr=False)
class Density(Spec):
    """A histogram of `heights`, shape (B,), that integrate to 1 between `edges`, shape (B + 1,)."""

    edges: Array
    heights: Array


@dataclass(frozen=True, eq=False, repr=False)
class Transfer(Spec):
    """One channel from its inputs to its outputs, y = β + γ z.

    `inputs` are in units of z, which `x_label` names, and `outputs` in those of y; `expected` says whether z is about
    running statistics, by which a standard Gaussian is expected of the inputs. What follows makes `after` of y at the
    places `z`, where it is known and named by `follows`, and is flat where y is not between the two values of `alive`.
    """

    title: str
    inputs: Density
    outputs: Density
    gamma: float
    beta: float
    z: Array
    x_label: str
    expected: bool
    after: Array | None = None
    follows: str = ""
    alive: tuple[float, float] = (-np.inf, np.inf)


# Patches, and plain axes


@dataclass(frozen=True, eq=False, repr=False)
class Swatch(Spec):
    """A patch of one color: red, green and blue from 0 to 1, with its words."""

    rgb: tuple[float, float, float]
    label: str


@dataclass(frozen=True, eq=False, repr=False)
class Swatches(Spec):
    """Patches of color in a row."""

    patches: tuple[Swatch, ...]

    def _says(self) -> str:
        return f" of {count(len(self.patches), 'colour')}"


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Spec):
    """Values against positions, the same shape; `dots` leaves out the line, `dashed` is for what to compare with."""

    x: Array
    y: Array
    label: str = ""
    colour: str = MEASURED
    dashed: bool = False
    dots: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Plot(Spec):
    """One pair of axes. Labels name the quantity and its unit."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[float, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    diagonal: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Plots(Spec):
    """Pairs of axes in rows of two; `narrow` ones stand below one another and can be read on a phone."""

    plots: tuple[Plot, ...]
    narrow: bool = False

    def _says(self) -> str:
        return f": {_titles(self.plots)}"


Picture = ByDepth | Spine | NetworkMap | Clouds | LayerChange | Transfer | Swatches | Plots
"""Whatever `figures.draw` draws."""


def _titles(panels: Sequence[Any]) -> str:
    return ", ".join(repr(shorten(panel.title, 40)) for panel in panels)
