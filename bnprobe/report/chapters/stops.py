"""The places of the spine: every norm, or blocks of them, with their names, and what is drawn along them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count as count_from
from itertools import groupby

import numpy as np
import pandas as pd

from bnprobe.measures.norm_roles import is_transformer, names_by_role
from bnprobe.report.figures.axes import stage_bounds
from bnprobe.report.figures.names import short_names
from bnprobe.report.figures.specs import Lane, Spine
from bnprobe.report.numbers import number
from bnprobe.report.page.blocks import Cell, Figure, Table
from bnprobe.stats.moments import Array

MOST = 64
"""Norms above which those of a block are drawn as one."""

MOST_BLOCKS, FEW_BLOCKS = 72, 20
"""Places that there may be of blocks, and how many are too few to tell where in the network something is."""

ARCS = " Arcs are residual connections."
"""In the caption of the picture that has them: the one for a phone has no room for any."""

LONGEST, LONGEST_UPRIGHT, LONGEST_IN_TABLE = 22, 16, 60
"""Letters of a name: lying, standing, and in words."""

ROOM = 130
"""Letters that stand side by side below the whole picture."""


@dataclass(frozen=True)
class Stop:
    """One place of the spine: a norm, or some that follow each other. `rows` are those of the table of layers.

    `path` is what they begin with; `end` what follows their name where the name is that of the first of several. `role` is
    the name by its role that a norm of a transformer has.
    """

    path: str
    rows: tuple[int, ...]
    end: str = ""
    role: str = ""


def stops_of(layers: pd.DataFrame) -> list[Stop]:
    """Every norm, or where these are too many, blocks: as long a beginning of their paths as keeps them few enough.

    Where that leaves few, a level deeper is taken, and places that follow each other in a block become one.
    """
    paths = list(layers["layer"])
    calls = [f" call {call + 1}" if call else "" for call in layers["call"]]
    roles = names_by_role(layers) if is_transformer(layers) else [""] * len(paths)
    finer = [Stop(path, (i,), calls[i], roles[i]) for i, path in enumerate(paths)]
    if len(finer) <= MOST:
        return finer
    parts = [path.split(".") for path in paths]
    for depth in range(max(map(len, parts)), -1, -1):
        coarse = _runs([".".join(part[:depth]) for part in parts])
        if len(coarse) <= MOST_BLOCKS:
            return coarse if len(coarse) >= FEW_BLOCKS else _joined(finer, coarse)
        finer = coarse
    return finer


def _runs(prefixes: list[str]) -> list[Stop]:
    """Rows that follow each other under one prefix."""
    stops: list[Stop] = []
    for row, prefix in enumerate(prefixes):
        if stops and stops[-1].path == prefix:
            stops[-1] = Stop(prefix, (*stops[-1].rows, row))
        else:
            stops.append(Stop(prefix, (row,)))
    return stops


def _joined(finer: list[Stop], coarse: list[Stop]) -> list[Stop]:
    """Places of one block that follow each other, so many to one as it takes."""
    block_of = {row: block for block, stop in enumerate(coarse) for row in stop.rows}
    by_block = [list(mine) for _, mine in groupby(finer, key=lambda stop: block_of[stop.rows[0]])]
    each = next(n for n in count_from(2) if sum(-(-len(mine) // n) for mine in by_block) <= MOST_BLOCKS)
    return [_as_one(mine[i : i + each]) for mine in by_block for i in range(0, len(mine), each)]


def _as_one(stops: list[Stop]) -> Stop:
    """Named after the first and the last: denselayer1–2."""
    last = stops[-1].path.rpartition(".")[2]
    index = re.search(r"\d+$", last)
    end = f"–{index[0] if index else last}" if len(stops) > 1 else stops[0].end
    return Stop(stops[0].path, tuple(row for stop in stops for row in stop.rows), end)


def drawn(
    layers: pd.DataFrame,
    stops: list[Stop],
    lanes: tuple[Lane, ...],
    caption: str,
    by: str,
    arcs: tuple[tuple[int, int], ...] = (),
) -> tuple[Figure, ...]:
    """The picture for wide screens and paper, and the same downwards for a phone; nothing where no lane has data.

    A place of several norms leads to the one with the largest value in the column `by`.
    """
    if not lanes:
        return ()
    paths = tuple(stop.path for stop in stops)
    what = "normalization layer" if len(stops) == len(layers) else "block of normalization layers"
    alt = f"The network by depth, one place per {what}: {'; '.join(lane.title for lane in lanes)}."
    stages = _stages(paths)
    wide = Spine(_names_in_stages(stops, stages), paths, lanes, arcs, stages)
    narrow = Spine(_short(stops, LONGEST_UPRIGHT), paths, lanes, upright=True)
    rows = tuple(stop.rows for stop in stops)
    table = _table(
        _short(stops, LONGEST_IN_TABLE), lanes, tuple(_row_to_see(layers[by], stop) for stop in stops)
    )
    return (
        Figure("spine", alt, wide, f"{caption}{ARCS if arcs else ''}", width="wide", rows=rows),
        Figure("spine upright", alt, narrow, caption, width="narrow", table=table, rows=rows),
    )


def _short(stops: list[Stop], longest: int) -> tuple[str, ...]:
    short = short_names(
        [stop.role or stop.path for stop in stops], longest - max(len(stop.end) for stop in stops)
    )
    return tuple(name + stop.end for name, stop in zip(short, stops, strict=True))


def _stages(paths: tuple[str, ...]) -> tuple[tuple[int, int, str], ...]:
    """Runs of places whose paths begin alike, by the first part in which paths differ; nothing where these are short."""
    bounds = stage_bounds(list(paths))
    runs = list(zip([0, *bounds], [*bounds, len(paths)], strict=True))
    depth = next((d for d in range(8) if len({tuple(path.split(".")[: d + 1]) for path in paths}) > 1), 0)
    named = [(first, end - 1, paths[first].split(".")[depth]) for first, end in runs if end - first > 1]
    inside = [one for one in named if all(path.count(".") > depth for path in paths[one[0] : one[1] + 1])]
    room = len(paths) / ROOM
    fits = all(len(words) * room <= last - first + 1 for first, last, words in inside)
    return tuple(inside) if bounds and fits else ()


def _names_in_stages(stops: list[Stop], stages: tuple[tuple[int, int, str], ...]) -> tuple[str, ...]:
    """Names without what the bracket of their stage says."""
    paths = [stop.path for stop in stops]
    for first, last, words in stages:
        for i in range(first, last + 1):
            paths[i] = f".{paths[i]}.".partition(f".{words}.")[2].strip(".") or paths[i]
    return _short([replace(stop, path=path) for path, stop in zip(paths, stops, strict=True)], LONGEST)


def _row_to_see(values: pd.Series, stop: Stop) -> int:
    """The norm of a place with the largest value, or the first."""
    mine = values.to_numpy(dtype=np.float64)[list(stop.rows)]
    return stop.rows[int(np.nanargmax(mine)) if np.isfinite(mine).any() else 0]


def _table(names: tuple[str, ...], lanes: tuple[Lane, ...], layers: tuple[int, ...]) -> Table:
    """What the lanes show, in numbers: for tooltips, and for those who do not see them."""
    heads = (("norm", ""), *((lane.title, f"Unit: {lane.unit}." if lane.unit else "") for lane in lanes))
    rows = tuple(
        (Cell(name, number=False), *(Cell(lane.words[i], number=False) for lane in lanes))
        for i, name in enumerate(names)
    )
    return Table(heads, rows, layers=layers)


def largest_of(values: Array, stops: list[Stop]) -> Array:
    """The largest known value of every stop."""
    return _of_stops(values, stops, np.nanmax)


def mean_of(values: Array, stops: list[Stop]) -> Array:
    """The mean of the known values of every stop."""
    return _of_stops(values, stops, np.nanmean)


def _of_stops(values: Array, stops: list[Stop], summary: Callable[[Array], float]) -> Array:
    """A summary of the known values of every stop; NaN where there are none."""
    rows = [values[list(stop.rows)] for stop in stops]
    return np.array([summary(row) if np.isfinite(row).any() else np.nan for row in rows])


def marked_words(values: Array, marks: Mapping[int, str]) -> tuple[str, ...]:
    """The value of every place, with the mark that stands there."""
    return tuple(
        f"{number(value, 2)}{f' ({marks[i]})' if i in marks else ''}" for i, value in enumerate(values)
    )


def stop_of(stops: list[Stop], row: int) -> int:
    """The number of the place that a norm belongs to."""
    return next(i for i, stop in enumerate(stops) if row in stop.rows)


def residual_arcs(layers: pd.DataFrame, stops: list[Stop]) -> tuple[tuple[int, int], ...]:
    """Residual connections: from the stop that the other side of a sum comes from to the one whose branch it meets."""
    where = {path: row for row, path in enumerate(layers["layer"])}
    arcs = []
    for row, skip in enumerate(layers["skip"]):
        source = where.get(str(skip).removeprefix("sum at "))
        if source is not None and source < row:
            ends = stop_of(stops, source), stop_of(stops, row)
            arcs += [ends] if ends[0] < ends[1] else []
    return tuple(dict.fromkeys(arcs))
