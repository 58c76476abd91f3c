"""Tokens in a transformer: how the residual stream grows, which tokens are loud, what branches add, and gains by role."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnprobe.measures import Tables
from bnprobe.measures.norm_roles import is_transformer, names_by_role, towers_of
from bnprobe.recording.names import (
    ATTENTION,
    BOTH,
    CROSS_ATTENTION,
    FINAL,
    KEY,
    MIXER,
    MLP,
    NORM_ROLES,
    QUERY,
)
from bnprobe.report.chapters.chapter import Absent, Material, highest
from bnprobe.report.colours import EXPECTED, GREEN, MEASURED, MUTED, ROSE, SAND, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Band, Curves, Line
from bnprobe.report.numbers import MISSING, count, number, share
from bnprobe.report.page.blocks import Cell, Figure, Prose, Section, Table
from bnprobe.rules.tokens import loud_stretch
from bnprobe.stats.moments import Array

TITLE = "Tokens and gains by role"

READS_STREAM = (ATTENTION, BOTH, MIXER, CROSS_ATTENTION, MLP, FINAL)
"""Roles of norms whose input is the residual stream."""

GROWN, STEP = 1.5, 2.0
"""Factors from which the growth of the stream, and one step of it, are told."""

IGNORED, MOST_IGNORED = 1e-3, 0.2
"""Share of what a layer reads below which dimensions together count as ignored, and from which share of the dimensions
that is told."""

COLOURS = {ATTENTION: MEASURED, MLP: EXPECTED, QUERY: VIOLET, KEY: GREEN, CROSS_ATTENTION: SAND, FINAL: ROSE}


def chapter(material: Material) -> Section | Absent:
    """The sentences, the stream by depth, and the gains, each role by itself."""
    tables = material.tables
    if not is_transformer(tables.layers):
        return Absent(TITLE, "no norm feeds attention")
    measured = tables.layers["token_scale"].notna().any()
    figures = [_stream(tables.layers)] if measured and len(tables.layers) > 1 else []
    figures += _gains(tables)
    words = (*_growth(tables.layers), *sink(tables.layers), *_ignored(tables))
    return Section(
        "tokens", TITLE, (*([Prose(words)] if words else []), *figures, _table(tables)), short="Tokens"
    )


def sink(layers: pd.DataFrame) -> list[str]:
    """Which token is how many times as loud as the median one, from which norm to which, and in which dimension."""
    stretch = loud_stretch(layers)
    if stretch is None:
        return []
    every = names_by_role(layers)
    loudest, names = highest(stretch, "loudest_token"), [every[i] for i in stretch.index]
    where = f"From {names[0]} to {names[-1]}" if len(names) > 1 else f"At {names[0]}"
    position = loudest["loudest_position"]
    token = f"token {position:.0f} of a sequence" if position >= 0 else "one token"
    return [
        f"{where}, {token} is up to {number(float(loudest['loudest_token']), 3)} times as loud as the median token, with "
        f"{share(float(loudest['loudest_channel_share']))} of its energy in dimension {loudest['loudest_channel']:.0f}."
    ]


def _growth(layers: pd.DataFrame) -> list[str]:
    """How much the stream grows from the first norm on it to the last, and where most at once."""
    towers = pd.Series(towers_of(layers), index=layers.index)
    known = layers["norm_role"].isin(READS_STREAM) & (layers["token_scale"] > 0)
    if known.any():  # of several towers the one that ends the network
        known &= towers == towers[known].iloc[-1]
    stream = layers[known]
    if len(stream) < 2:
        return []
    every = pd.Series(names_by_role(layers), index=layers.index)
    sizes, names = of(stream, "token_scale"), list(every[known])
    factor = sizes[-1] / sizes[0]
    if factor < GROWN:
        return []
    steps = sizes[1:] / sizes[:-1]
    most = int(np.argmax(steps))
    text = (
        f"The residual stream grows {number(float(factor), 2)}-fold: the typical token has a scale of "
        f"{number(float(sizes[0]), 2)} at {names[0]} and {number(float(sizes[-1]), 2)} at {names[-1]}."
    )
    if steps[most] < STEP:
        return [text]
    return [
        f"{text} The largest step is before {names[most + 1]}: {number(float(steps[most]), 2)} times as large as before."
    ]


def _ignored(tables: Tables) -> list[str]:
    """The norm that passes the fewest dimensions on, where that is a large part of them."""
    shares = tables.channels["read_share"].groupby(
        [tables.channels["layer"], tables.channels["call"]], sort=False
    )
    ignored = np.array([_n_ignored(of_site.to_numpy(float)) for _, of_site in shares])
    width = of(tables.layers, "n_channels")
    i = int(np.argmax(ignored / width))
    if ignored[i] < MOST_IGNORED * width[i]:
        return []
    return [
        f"What reads {names_by_role(tables.layers)[i]} ignores {ignored[i]:,.0f} of its {width[i]:,.0f} dimensions: "
        f"together they make up {share(IGNORED)} of what it reads."
    ]


def _n_ignored(shares: Array) -> int:
    """How many of the smallest shares stay below IGNORED together."""
    return int((np.cumsum(np.sort(shares)) <= IGNORED).sum()) if np.isfinite(shares).all() else 0


def _stream(layers: pd.DataFrame) -> Figure:
    median, loudest = of(layers, "token_scale"), of(layers, "loudest_token")
    panels = [
        Curves(
            "scale of tokens",
            (Line(median, "median token"), Line(median * loudest, "loudest token", ROSE)),
            Band(of(layers, "token_scale_low"), of(layers, "token_scale_high"), label="5% to 95%"),
            logarithmic=True,
        ),
        Curves(
            "change of the stream since the previous norm, relative to its size",
            (Line(of(layers, "branch"), "", EXPECTED),),
            logarithmic=True,
        ),
        Curves(
            "largest dimension, share of the energy",
            (
                Line(of(layers, "loudest_channel_share"), "of the loudest token", ROSE),
                Line(of(layers, "z_largest"), "of all tokens, each divided by its scale"),
            ),
            limits=(0, 1),
            unit="share",
        ),
    ]
    shown = tuple(panel for panel in panels if any(np.isfinite(line.values).any() for line in panel.lines))
    return Figure(
        "tokens",
        f"Scale of tokens, what branches add and the largest dimension at {count(len(layers), 'norm')}, by depth.",
        by_depth(layers, shown),
        "Scale: root mean square of a token's values, as the norm divides by it.",
    )


def _gains(tables: Tables) -> list[Figure]:
    """|γ| by depth, a panel for each role that several norms have."""
    layers = tables.layers
    size = tables.channels["gamma"].abs()
    by_site = size.groupby([tables.channels["layer"], tables.channels["call"]], sort=False)
    low, middle, high = (by_site.quantile(q).to_numpy(float) for q in (0.05, 0.5, 0.95))
    panels = []
    for role in NORM_ROLES:
        rows = np.flatnonzero((layers["norm_role"] == role).to_numpy() & np.isfinite(middle))
        if len(rows) < 2:
            continue
        colour = COLOURS.get(role, MUTED)
        panels.append(
            Curves(
                f"|γ|, {role}",
                (Line(_between(middle, rows), "", colour),),
                Band(_between(low, rows), _between(high, rows), colour),
                levels=((1.0, "untrained"),),
            )
        )
    if not panels:
        return []
    alt = f"Gains by role and depth: {', '.join(panel.title.removeprefix('|γ|, ') for panel in panels)}."
    return [
        Figure(
            "gains",
            alt,
            by_depth(layers, tuple(panels)),
            "Median and 5% to 95% of the channels of each norm.",
        )
    ]


def _between(values: Array, rows: NDArray[np.intp]) -> Array:
    """The values of some norms with straight lines between them; NaN outside."""
    places = np.arange(len(values))
    return np.asarray(np.interp(places, rows, values[rows], left=np.nan, right=np.nan))


def _table(tables: Tables) -> Table:
    """A row per role: how many norms, the gains of all of them, and how many gains are where they began."""
    of_channels = tables.channels.merge(tables.layers[["layer", "call", "norm_role"]], on=["layer", "call"])
    rows = []
    for role in NORM_ROLES:
        mine = tables.layers[tables.layers["norm_role"] == role]
        gains = of_channels["gamma"][of_channels["norm_role"] == role].dropna().to_numpy(float)
        if mine.empty:
            continue
        known = gains.size > 0
        quantiles = np.quantile(np.abs(gains), (0.5, 0.05, 0.95)) if known else np.full(3, np.nan)
        parts = (float(np.mean(gains < 0)), float(np.mean(gains == 1))) if known else (np.nan, np.nan)
        cells = [Cell(role, number=False), Cell(f"{len(mine):,}")]
        cells += [Cell(number(float(q), 2)) for q in quantiles]
        cells += [Cell(share(part) if known else MISSING) for part in parts]
        rows.append(tuple(cells))
    return Table(HEADS, tuple(rows), "Gains of the norms by what they are for.")


HEADS = (
    ("role", "What the norm is for, from the operations that ran."),
    ("norms", "How many norms have the role."),
    ("|γ|, median", "Of all channels of these norms."),
    ("5%", "|γ| that 5% of the channels stay below."),
    ("95%", "|γ| that 95% of the channels stay below."),
    ("negative", "Share of negative γ."),
    ("at 1", "Share of γ that are exactly their initial 1."),
)
