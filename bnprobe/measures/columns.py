"""What a column of the tables means, and how the page shows it: the first reader of a measure is its glossary line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Columns = Mapping[str, Any]
"""Channel columns of one site by name, shape (C,) each."""

Group = Literal["match with training", "activity", "learned", "shape and classes", "gradients"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""The menu of the map, in order."""


@dataclass(frozen=True)
class Paint:
    """How a column becomes colors on the map, in the `group` of the menu that it stands in. `scale` is one of

    even      proportional to the value
    log       the logarithm of what is positive
    share     always from 0 to 1
    names     one color per word

    `limits` are the values at the ends of the colors, the same for every network, so that a healthy and a broken one do not
    look alike; where there are none the unit is the network's own, and the colors span its 2nd to 98th percentile.
    "diverging" colors are lightest at `centre` on a light page and darkest on a dark one. What is `against_running` says
    nothing where running statistics were never updated, and opens its group.
    """

    group: Group
    label: str
    colours: str
    scale: str = "even"
    centre: float | None = None
    limits: tuple[float, float] | None = None
    against_running: bool = False


def signed(group: Group, label: str, reach: float | None, against_running: bool = False) -> Paint:
    """Of what lies on both sides of 0, with its largest color at `reach`."""
    limits = None if reach is None else (-reach, reach)
    return Paint(group, label, "diverging", "even", 0, limits, against_running)


@dataclass(frozen=True)
class Column:
    """One column: what it says in a sentence, its formula, its unit, and where it comes from.

    `table` is "channels", "layers" or "both". A column of channels with a `rank` travels with the page, to be read at
    every channel of the opened layer: those of rank 1 always, further ones as far as they fit, lower ranks first. One
    that also has a `paint` can color the map.
    """

    name: str
    meaning: str
    formula: str = ""
    unit: str = ""
    source: str = ""
    table: str = "channels"
    rank: int | None = None
    paint: Paint | None = None
