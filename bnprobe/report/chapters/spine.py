"""The network drawn once, in the order in which the data reach its norms, on scales that are the same for every network."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shift_by_depth import course
from bnprobe.measures.tables import by_site
from bnprobe.recording.names import NOT_JUDGED, SHIFTED
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.report.chapters.stops import (
    Stop,
    drawn,
    largest_of,
    marked_words,
    mean_of,
    residual_arcs,
    stop_of,
    stops_of,
)
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.from_tables import of
from bnprobe.report.figures.specs import Lane
from bnprobe.report.numbers import MISSING, number
from bnprobe.report.page.blocks import Figure
from bnprobe.rules.thresholds import Limits
from bnprobe.stats.moments import Array

FARTHEST = 1.0
"""Running σ at which the lane of distances ends; what is farther is drawn at the end."""

MOST_SILENT = 0.25
"""Share of channels at which the lane of those that do not work ends."""

SCALES = (0.01, 100.0)
"""Standard deviations at the ends of their lane."""

LARGEST_GAMMA = 3.0
"""|γ| at which its lane ends."""


def spine(tables: Tables, fresh: bool = False) -> tuple[Figure, ...]:
    """The picture for wide screens and paper, and the same downwards for a phone; nothing where no lane has data.

    Of a `fresh` network, which was not trained, nothing is said that only training can bring about.
    """
    layers = tables.layers
    stops = stops_of(layers)
    lanes = tuple(
        lane
        for lane in (
            _distance(tables, stops) or _deviation(tables, stops),
            _scale(tables, stops),
            None if fresh else _silent(tables, stops),
            _gradient(tables, stops),
            _gamma(tables, stops),
        )
        if lane
    )
    return drawn(layers, stops, lanes, _caption(layers, stops, lanes), "w2_rms", residual_arcs(layers, stops))


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
    marks = {stop_of(stops, row): words for row, words in places.items() if row is not None}
    limits, worst = Limits(), largest_of(values, stops)
    return Lane(
        "distance of the data from the running statistics",
        worst,
        unit="running σ",
        short="distance (running σ)",
        limits=(0.0, FARTHEST),
        levels=((VISIBLE_SHIFT, "visible"), (limits.shift, "warning")),
        zones=True,
        strong=tuple(any(layers["verdict"].iloc[row] in SHIFTED for row in stop.rows) for stop in stops),
        marks=tuple(sorted(marks.items())),
        words=marked_words(worst, marks),
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
    typical = mean_of(values, stops)
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
    with np.errstate(invalid="ignore"):  # in a broken file it may be negative
        return np.asarray(np.sqrt(variance.to_numpy(dtype=np.float64)))


def _scale(tables: Tables, stops: list[Stop]) -> Lane | None:
    """What norms without running statistics divide by: the typical sample's, and two deviations between samples."""
    logs = np.log(of(tables.layers, "own_sd"))
    spread = of(tables.layers, "own_log_var_sd") / 2
    if not np.isfinite(logs).any():
        return None
    low, high = -largest_of(2 * spread - logs, stops), largest_of(logs + 2 * spread, stops)
    typical = np.exp(mean_of(logs, stops))
    by_token = (of(tables.layers, "n_tokens")[np.isfinite(logs)] > 0).all()
    sample = "token" if by_token else "sample"
    return Lane(
        f"scale that each {sample} is divided by",
        typical,
        short=f"each {sample} divided by",
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


def _gradient(tables: Tables, stops: list[Stop]) -> Lane | None:
    """How long the gradient is at every norm, where a backward pass was recorded: against that of the median norm."""
    lengths = of(tables.layers, "grad_out")
    known = lengths[np.isfinite(lengths) & (lengths > 0)]
    if not known.size:
        return None
    relative = mean_of(np.where(lengths > 0, lengths, np.nan) / np.median(known), stops)
    return Lane(
        "length of the gradient, relative to the median norm",
        relative,
        short="gradient",
        limits=SCALES,
        logarithmic=True,
        levels=((1.0, "1"),),
        words=tuple(number(value, 2) for value in relative),
    )


def _gamma(tables: Tables, stops: list[Stop]) -> Lane | None:
    """What scaling was learned: the middle and the spread of |γ| against the 1 of an untrained norm."""
    by_row = by_site(tables.channels[["channel", "gamma"]])
    sizes = [finite(pd.concat([by_row[row]["gamma"] for row in stop.rows]).abs()) for stop in stops]
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


def on_scale(sizes: Array) -> Array:
    """Where on the scale of standard deviations these lie, from 0 to 1 within it."""
    low, high = np.log(SCALES)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((np.log(sizes) - low) / (high - low))


def finite(values: pd.Series) -> Array:
    """Those that are."""
    found = values.to_numpy(dtype=np.float64)
    return np.asarray(found[np.isfinite(found)])


def _caption(layers: pd.DataFrame, stops: list[Stop], lanes: tuple[Lane, ...]) -> str:
    """How to read it, in one line for every lane that there is."""
    texts = []
    if len(stops) < len(layers):
        texts.append(
            f"{len(layers):,} norms at {len(stops):,} places: each shows its worst norm and all of its channels."
        )
    titles = " ".join(lane.title for lane in lanes)
    if "distance" in titles:
        texts.append(
            "A point is filled where at least a third of a norm's channels are shifted beyond sampling error, by 0.2 "
            "running σ or a tenth in scale; hollow ones match, or saw too few samples to say."
        )
    if "divided by" in titles:
        texts.append("Scale: the typical sample, and two standard deviations between samples around it.")
    if "|γ|" in titles:
        texts.append("|γ|: median, middle half, and 5% to 95% of the channels.")
    return " ".join(texts)
