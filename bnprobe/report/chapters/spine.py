"""The network drawn once, in the order in which the data reach its norms, on scales that are the same for every network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shift_by_depth import course
from bnprobe.recording.names import NOT_JUDGED, SHIFTED
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.from_tables import of, site_names
from bnprobe.report.figures.specs import Lane, Spine
from bnprobe.report.numbers import shorten
from bnprobe.report.page.blocks import Figure
from bnprobe.rules.thresholds import Limits
from bnprobe.stats.moments import Array

MOST = 60
"""Norms above which those of a block are drawn as one."""

FARTHEST = 1.0
"""Running σ at which the lane of distances ends; what is farther is drawn at the end."""

MOST_SILENT = 0.25
"""Share of channels at which the lane of those that do not work ends."""

SCALES = (0.001, 1000.0)
"""What norms without running statistics divide by, at the ends of their lane."""

LARGEST_GAMMA = 3.0
"""|γ| at which its lane ends."""


@dataclass(frozen=True)
class Stop:
    """One place of the spine: a norm, or the norms of one block. `rows` are those of the table of layers."""

    name: str
    path: str
    rows: tuple[int, ...]


def spine(tables: Tables) -> tuple[Figure, ...]:
    """The picture for wide screens and paper, and the same downwards for a phone; nothing where no lane has data."""
    stops = _stops(tables.layers)
    lanes = tuple(
        lane
        for lane in (
            _distance(tables, stops),
            _scale(tables, stops),
            _silent(tables, stops),
            _gamma(tables, stops),
        )
        if lane
    )
    if not lanes:
        return ()
    names, paths = tuple(stop.name for stop in stops), tuple(stop.path for stop in stops)
    arcs = _arcs(tables.layers, stops)
    what = "normalization layer" if len(stops) == len(tables.layers) else "block of normalization layers"
    alt = f"The network by depth, one place per {what}: {'; '.join(lane.title for lane in lanes)}."
    caption = _caption(tables.layers, stops, lanes)
    return (
        Figure("spine", alt, Spine(names, paths, lanes, arcs), caption, width="wide"),
        Figure("spine upright", alt, Spine(names, paths, lanes, upright=True), caption, width="narrow"),
    )


def _stops(layers: pd.DataFrame) -> list[Stop]:
    """Every norm, or where these are too many, blocks: as long a beginning of their paths as keeps them few enough."""
    names, paths = site_names(layers), list(layers["layer"])
    if len(layers) <= MOST:
        return [Stop(name, path, (i,)) for i, (name, path) in enumerate(zip(names, paths, strict=True))]
    parts = [path.split(".") for path in paths]
    for depth in range(max(map(len, parts)), 0, -1):
        stops = _runs([".".join(part[:depth]) for part in parts])
        if len(stops) <= MOST:
            return stops
    # all in one folder: as many norms to a place as it takes
    each = -(-len(layers) // MOST)
    starts = range(0, len(layers), each)
    return [Stop(names[i], paths[i], tuple(range(i, min(i + each, len(layers))))) for i in starts]


def _runs(prefixes: list[str]) -> list[Stop]:
    """Rows that follow each other under one prefix."""
    stops: list[Stop] = []
    for row, prefix in enumerate(prefixes):
        if stops and stops[-1].path == prefix:
            stops[-1] = Stop(stops[-1].name, prefix, (*stops[-1].rows, row))
        else:
            stops.append(Stop(shorten(prefix, 28), prefix, (row,)))
    return stops


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
        strong=tuple(any(layers["verdict"].iloc[row] in SHIFTED for row in stop.rows) for stop in stops),
        marks=tuple(sorted(marks.items())),
    )


def _scale(tables: Tables, stops: list[Stop]) -> Lane | None:
    """What norms without running statistics divide by: the typical sample's, and two deviations between samples."""
    logs = np.log(of(tables.layers, "own_sd"))
    spread = of(tables.layers, "own_log_var_sd") / 2
    if not np.isfinite(logs).any():
        return None
    low, high = -_worst(2 * spread - logs, stops), _worst(logs + 2 * spread, stops)
    return Lane(
        "scale that each sample is divided by",
        np.exp(_typical(logs, stops)),
        short="own scale",
        limits=SCALES,
        logarithmic=True,
        levels=((1.0, "1"),),
        bands=((np.exp(low), np.exp(high)),),
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
    )


def _channels_of(tables: Tables, stops: list[Stop]) -> list[pd.DataFrame]:
    """The channels of every stop, in the order of the stops."""
    by_row = [of_site for _, of_site in tables.channels.groupby(["layer", "call"], sort=False)]
    return [
        pd.concat([by_row[row] for row in stop.rows]) if len(stop.rows) > 1 else by_row[stop.rows[0]]
        for stop in stops
    ]


def finite(values: pd.Series) -> Array:
    """Those that are."""
    found = values.to_numpy(dtype=np.float64)
    return np.asarray(found[np.isfinite(found)])


def _worst(values: Array, stops: list[Stop]) -> Array:
    """The largest known value of every stop."""
    rows = [values[list(stop.rows)] for stop in stops]
    return np.array([np.nanmax(row) if np.isfinite(row).any() else np.nan for row in rows])


def _typical(values: Array, stops: list[Stop]) -> Array:
    """The mean of the known values of every stop."""
    rows = [values[list(stop.rows)] for stop in stops]
    return np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in rows])


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
            f"{len(layers):,} norms in {len(stops):,} blocks: each shows its worst norm and all of its channels."
        )
    titles = " ".join(lane.title for lane in lanes)
    if "distance" in titles:
        texts.append("Filled where the norm is shifted beyond sampling error and by a size that matters.")
    if "divided by" in titles:
        texts.append("Scale: the typical sample, and two standard deviations between samples around it.")
    if "|γ|" in titles:
        texts.append("|γ|: median, middle half, and 5% to 95% of the channels.")
    return " ".join(texts)
