"""The network drawn once, in the order in which the data reach its norms, on scales that are the same for every network."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count as count_from
from itertools import groupby

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shift_by_depth import course
from bnprobe.recording.names import NOT_JUDGED, SHIFTED
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.axes import stage_bounds
from bnprobe.report.figures.from_tables import of
from bnprobe.report.figures.names import short_names
from bnprobe.report.figures.specs import Lane, Spine
from bnprobe.report.numbers import MISSING, number
from bnprobe.report.page.blocks import Cell, Figure, Table
from bnprobe.rules.thresholds import Limits
from bnprobe.stats.moments import Array

MOST = 60
"""Norms above which those of a block are drawn as one."""

MOST_BLOCKS, FEW_BLOCKS = 72, 20
"""Places that there may be of blocks, and how many are too few to tell where in the network something is."""

LONGEST, LONGEST_UPRIGHT, LONGEST_IN_TABLE = 22, 16, 60
"""Letters of a name: lying, standing, and in words."""

ROOM = 130
"""Letters that stand side by side below the whole picture."""

FARTHEST = 1.0
"""Running σ at which the lane of distances ends; what is farther is drawn at the end."""

MOST_SILENT = 0.25
"""Share of channels at which the lane of those that do not work ends."""

SCALES = (0.01, 100.0)
"""Standard deviations at the ends of their lane."""

LARGEST_GAMMA = 3.0
"""|γ| at which its lane ends."""


@dataclass(frozen=True)
class Stop:
    """One place of the spine: a norm, or some that follow each other. `rows` are those of the table of layers.

    `path` is what they begin with; `end` what follows their name where the name is that of the first of several.
    """

    path: str
    rows: tuple[int, ...]
    end: str = ""


def spine(tables: Tables, fresh: bool = False) -> tuple[Figure, ...]:
    """The picture for wide screens and paper, and the same downwards for a phone; nothing where no lane has data.

    Of a `fresh` network, which was not trained, nothing is said that only training can bring about.
    """
    layers = tables.layers
    stops = _stops(layers)
    lanes = tuple(
        lane
        for lane in (
            _distance(tables, stops) or _deviation(tables, stops),
            _scale(tables, stops),
            None if fresh else _silent(tables, stops),
            _gamma(tables, stops),
        )
        if lane
    )
    if not lanes:
        return ()
    paths = tuple(stop.path for stop in stops)
    arcs = _arcs(layers, stops)
    what = "normalization layer" if len(stops) == len(layers) else "block of normalization layers"
    alt = f"The network by depth, one place per {what}: {'; '.join(lane.title for lane in lanes)}."
    caption = _caption(layers, stops, lanes)
    stages = _stages(paths)
    wide = Spine(_names_in_stages(stops, stages), paths, lanes, arcs, stages)
    narrow = Spine(_short(stops, LONGEST_UPRIGHT), paths, lanes, upright=True)
    rows = tuple(stop.rows for stop in stops)
    table = _table(_short(stops, LONGEST_IN_TABLE), lanes, tuple(_worst_row(layers, stop) for stop in stops))
    return (
        Figure("spine", alt, wide, caption, width="wide", rows=rows),
        Figure("spine upright", alt, narrow, caption, width="narrow", table=table, rows=rows),
    )


def _short(stops: list[Stop], longest: int) -> tuple[str, ...]:
    short = short_names([stop.path for stop in stops], longest - max(len(stop.end) for stop in stops))
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
    return _short([Stop(path, stop.rows, stop.end) for path, stop in zip(paths, stops, strict=True)], LONGEST)


def _worst_row(layers: pd.DataFrame, stop: Stop) -> int:
    """The norm of a place that a reader wants to see: the one furthest from its running statistics, or the first."""
    distance = of(layers, "w2_rms")[list(stop.rows)]
    return stop.rows[int(np.nanargmax(distance)) if np.isfinite(distance).any() else 0]


def _table(names: tuple[str, ...], lanes: tuple[Lane, ...], layers: tuple[int, ...]) -> Table:
    """What the lanes show, in numbers: for tooltips, and for those who do not see them."""
    heads = (("norm", ""), *((lane.title, f"Unit: {lane.unit}." if lane.unit else "") for lane in lanes))
    rows = tuple(
        (Cell(name, number=False), *(Cell(lane.words[i], number=False) for lane in lanes))
        for i, name in enumerate(names)
    )
    return Table(heads, rows, layers=layers)


def _stops(layers: pd.DataFrame) -> list[Stop]:
    """Every norm, or where these are too many, blocks: as long a beginning of their paths as keeps them few enough.

    Where that leaves few, a level deeper is taken, and places that follow each other in a block become one.
    """
    paths = list(layers["layer"])
    calls = [f" call {call + 1}" if call else "" for call in layers["call"]]
    finer = [Stop(path, (i,), calls[i]) for i, path in enumerate(paths)]
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


def _distance(tables: Tables, stops: list[Stop]) -> Lane | None:
    """How far the data are from the running statistics, with where a shift enters, is largest and is gone."""
    layers = tables.layers
    judged = ~layers["verdict"].isin(NOT_JUDGED)
    values = np.where(judged, of(layers, "w2_rms"), np.nan)
    if not np.isfinite(values).any():
        return None
    found = course(layers)
    places = {found.opens: "enters", found.worst: "largest", found.healed: "gone"}
    if found.opens is not None and found.opens == found.worst:
        places[found.opens] = "enters, largest"
    marks = {_stop_of(stops, row): words for row, words in places.items() if row is not None}
    limits = Limits()
    return Lane(
        "distance of the data from the running statistics",
        _worst(values, stops),
        unit="running σ",
        short="distance (running σ)",
        limits=(0.0, FARTHEST),
        levels=((VISIBLE_SHIFT, "visible"), (limits.shift, "warning")),
        zones=True,
        strong=tuple(any(layers["verdict"].iloc[row] in SHIFTED for row in stop.rows) for stop in stops),
        marks=tuple(sorted(marks.items())),
        words=tuple(
            f"{number(value, 2)}{f' ({marks[i]})' if i in marks else ''}"
            for i, value in enumerate(_worst(values, stops))
        ),
    )


def _deviation(tables: Tables, stops: list[Stop]) -> Lane | None:
    """The standard deviation that norms with running statistics find, or without data, that they store."""
    measured = of(tables.layers, "pre_sd_median")
    known = np.isfinite(measured).any()
    if known and np.isfinite(of(tables.layers, "own_sd")).any():
        return None  # the lane of own scales says it
    values = measured if known else _stored(tables)
    if not np.isfinite(values).any():
        return None
    typical = _typical(values, stops)
    return Lane(
        "standard deviation of the inputs" if known else "stored standard deviation of the inputs",
        typical,
        short="input σ" if known else "stored σ",
        limits=SCALES,
        logarithmic=True,
        levels=((1.0, "1"),),
        words=tuple(number(value, 2) for value in typical),
    )


def _stored(tables: Tables) -> Array:
    """The running standard deviation of every norm's typical channel."""
    channels = tables.channels
    variance = channels["running_var"].groupby([channels["layer"], channels["call"]], sort=False).median()
    return np.asarray(np.sqrt(variance.to_numpy(dtype=np.float64)))


def _scale(tables: Tables, stops: list[Stop]) -> Lane | None:
    """What norms without running statistics divide by: the typical sample's, and two deviations between samples."""
    logs = np.log(of(tables.layers, "own_sd"))
    spread = of(tables.layers, "own_log_var_sd") / 2
    if not np.isfinite(logs).any():
        return None
    low, high = -_worst(2 * spread - logs, stops), _worst(logs + 2 * spread, stops)
    typical = np.exp(_typical(logs, stops))
    return Lane(
        "scale that each sample is divided by",
        typical,
        short="own scale",
        limits=SCALES,
        logarithmic=True,
        levels=((1.0, "1"),),
        bands=((np.exp(low), np.exp(high)),),
        words=tuple(number(value, 2) for value in typical),
    )


def _silent(tables: Tables, stops: list[Stop]) -> Lane | None:
    """The share of channels that do not work, and how many these are."""
    found = working(tables.channels)
    if not found.n_silent:
        return None  # the tile says so, and an empty lane nothing more
    silent, sizes = (
        np.array([per_norm[list(stop.rows)].sum() for stop in stops])
        for per_norm in (found.silent, found.sizes)
    )
    return Lane(
        "channels that do not work",
        silent / sizes,
        unit="share",
        short="not working",
        limits=(0.0, MOST_SILENT),
        bars=True,
        labels=tuple(f"{n:,}" if n else "" for n in silent),
        words=tuple(f"{n:,} of {size:,}" for n, size in zip(silent, sizes, strict=True)),
    )


def _gamma(tables: Tables, stops: list[Stop]) -> Lane | None:
    """What scaling was learned: the middle and the spread of |γ| against the 1 of an untrained norm."""
    sizes = [finite(channels["gamma"].abs()) for channels in _channels_of(tables, stops)]
    if not any(map(len, sizes)):
        return None
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    low, lower, middle, upper, high = np.array(
        [np.quantile(size, shares) if len(size) else [np.nan] * 5 for size in sizes]
    ).T
    return Lane(
        "learned |γ|",
        middle,
        limits=(0.0, LARGEST_GAMMA),
        levels=((1.0, "untrained"),),
        bands=((low, high), (lower, upper)),
        words=tuple(
            f"{number(half, 2)} ({number(least, 2)} to {number(most, 2)})" if np.isfinite(half) else MISSING
            for half, least, most in zip(middle, low, high, strict=True)
        ),
    )


def _channels_of(tables: Tables, stops: list[Stop]) -> list[pd.DataFrame]:
    """The channels of every stop, in the order of the stops."""
    by_row = [of_site for _, of_site in tables.channels.groupby(["layer", "call"], sort=False)]
    return [
        pd.concat([by_row[row] for row in stop.rows]) if len(stop.rows) > 1 else by_row[stop.rows[0]]
        for stop in stops
    ]


def on_scale(sizes: Array) -> Array:
    """Where on the scale of standard deviations these lie, from 0 to 1 within it."""
    low, high = np.log(SCALES)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.log(sizes) - low) / (high - low))


def finite(values: pd.Series) -> Array:
    """Those that are."""
    found = values.to_numpy(dtype=np.float64)
    return np.asarray(found[np.isfinite(found)])


def _worst(values: Array, stops: list[Stop]) -> Array:
    """The largest known value of every stop."""
    return _of_stops(values, stops, np.nanmax)


def _typical(values: Array, stops: list[Stop]) -> Array:
    """The mean of the known values of every stop."""
    return _of_stops(values, stops, np.nanmean)


def _of_stops(values: Array, stops: list[Stop], summary: Callable[[Array], float]) -> Array:
    """A summary of the known values of every stop; NaN where there are none."""
    rows = [values[list(stop.rows)] for stop in stops]
    return np.array([summary(row) if np.isfinite(row).any() else np.nan for row in rows])


def _stop_of(stops: list[Stop], row: int) -> int:
    return next(i for i, stop in enumerate(stops) if row in stop.rows)


def _arcs(layers: pd.DataFrame, stops: list[Stop]) -> tuple[tuple[int, int], ...]:
    """Residual connections: from the stop that the other side of a sum comes from to the one whose branch it meets."""
    where = {path: row for row, path in enumerate(layers["layer"])}
    arcs = []
    for row, skip in enumerate(layers["skip"]):
        source = where.get(str(skip).removeprefix("sum at "))
        if source is not None and source < row:
            ends = _stop_of(stops, source), _stop_of(stops, row)
            arcs += [ends] if ends[0] < ends[1] else []
    return tuple(dict.fromkeys(arcs))


def _caption(layers: pd.DataFrame, stops: list[Stop], lanes: tuple[Lane, ...]) -> str:
    """How to read it, in one line for every lane that there is."""
    texts = []
    if len(stops) < len(layers):
        texts.append(
            f"{len(layers):,} norms at {len(stops):,} places: each shows its worst norm and all of its channels."
        )
    titles = " ".join(lane.title for lane in lanes)
    if "distance" in titles:
        texts.append("Filled where the norm is shifted beyond sampling error and by a size that matters.")
    if "divided by" in titles:
        texts.append("Scale: the typical sample, and two standard deviations between samples around it.")
    if "|γ|" in titles:
        texts.append("|γ|: median, middle half, and 5% to 95% of the channels.")
    return " ".join(texts)
