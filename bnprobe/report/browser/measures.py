"""Which channel columns travel with the page, and which of them the map can show, by their declarations in `measures`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from bnprobe.measures import Column, glossary
from bnprobe.measures.columns import GROUPS, Paint

MOST_VALUES = 480_000
"""Numbers on a page, over all columns: what is beyond stays in `report.channels`, and the page says so."""

FEWEST = 16
"""Columns that even the widest network's page holds."""


def travelling() -> list[Column]:
    """Every column that a page may carry, the ones it can least do without first."""
    ranked = [(column.rank, column) for column in glossary() if column.rank is not None]
    return [column for _, column in sorted(ranked, key=lambda pair: pair[0])]


def paints() -> dict[str, Paint]:
    """The measures that the map can show, in the order of the menu."""
    painted = [(column.name, column.paint) for column in glossary() if column.paint is not None]
    order = sorted(painted, key=lambda pair: (GROUPS.index(pair[1].group), not pair[1].against_running))
    return dict(order)


def menu(painted: Collection[str]) -> dict[str, list[str]]:
    """Those of the map's measures that are there, in the groups of the menu."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name, paint in paints().items():
        if name in painted:
            groups[paint.group].append(name)
    return groups


def as_drawn(paint: Paint) -> dict[str, Any]:
    """What the scripts read of it: how numbers become colors."""
    return {name: value for name, value in vars(paint).items() if name not in ("group", "against_running")}


def chosen_columns(
    known: Collection[str],
    free: Collection[str],
    n_channels: int,
    most: int = MOST_VALUES,
    fewest: int = FEWEST,
) -> tuple[list[str], list[str]]:
    """Of the columns that hold anything: those that fit among `most` numbers, and those that do not.

    `free` ones take no space.
    """
    wanted = [column.name for column in travelling() if column.name in known]
    room = max(most // max(n_channels, 1), fewest)
    packed = [name for name in wanted if name not in free][:room]
    shown = [name for name in wanted if name in free or name in packed]
    return shown, [name for name in wanted if name not in shown]
