"""The network at a glance: maps of layer by channel, and the table of layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.tables import by_site
from bnprobe.recording import WEIGHTS_ONLY
from bnprobe.report.figures.from_tables import MapColumn, channel_map, column_names, log2, log10_root
from bnprobe.report.figures.specs import Band, Curves, Line, NetworkMap
from bnprobe.report.headings import heading
from bnprobe.report.page.blocks import Figure, Moving, Section, Table
from bnprobe.report.page.tables import table
from bnprobe.rules.wording import kind_words
from bnprobe.stats.moments import Array

LAYER_HEADS = (
    "layer",
    "kind",
    "n_channels",
    "mode",
    "normalized_by",
    "gamma_abs_median",
    "gamma_negative",
    "fires_median",
    "never_positive",
    "n_batches_tracked",
    "half_headroom",
    "follows",
    "feeder",
    "shift_rms",
    "var_ratio_median",
    "own_mean",
    "own_sd",
    "own_log_var_sd",
    "pre_skew_median",
    "pre_kurtosis_median",
)
NEEDS_DATA = ("normalized_by", "never_positive")

ONLY_WITHOUT_DATA = ("n_batches_tracked", "half_headroom", "follows", "feeder")
"""Columns that a page with data has no room for; all of them are in `report.layers`."""

RUNNING_MAPS = (
    MapColumn("shift of the mean, in running σ", "shift", "vlag", centre=0),
    MapColumn(
        "log₂ of the scale ratio (standard deviation, measured / running)",
        "scale_ratio",
        "vlag",
        log2,
        centre=0,
    ),
)

STORED_MAPS = (
    MapColumn("log₁₀ of the running standard deviation", "running_var", "viridis", log10_root),
    MapColumn("β", "beta", "vlag", centre=0),
)

OTHER_MAPS = (MapColumn("log₁₀ of the standard deviation before the norm", "pre_var", "viridis", log10_root),)

COMMON_MAPS = (
    MapColumn("share of positive outputs", "fires", "mako", limits=(0, 1)),
    MapColumn("γ", "gamma", "icefire", centre=0),
)


SITE = ("layer", "call", "channel")
"""Columns that say which channel of which site a row is."""


def overview(tables: Tables) -> Section:
    """The map that moves, the same for paper, and the table of layers."""
    return Section(
        "network",
        "The network at a glance",
        (Moving("map"), _figure(tables), _layer_table(tables)),
        short="Map",
    )


def _figure(tables: Tables) -> Figure:
    return Figure(
        "network",
        "Maps of the whole network, one column per normalization layer, under a profile by depth.",
        network_map(tables.channels),
        "One column per layer, in the order in which the data reach them. Within a column, channels are sorted by |γ|, "
        "largest on top. Every column is stretched to the same height; its number of channels is in parentheses. Gaps "
        "separate stages.",
        still=True,
    )


def network_map(channels: pd.DataFrame) -> NetworkMap:
    """A profile by depth above maps of layer by channel, sorted by |γ| within a layer."""
    stored = bool(channels["shift"].notna().any())
    seen = bool((channels["n_values"] > 0).any())
    maps = [*(RUNNING_MAPS if stored else OTHER_MAPS if seen else STORED_MAPS), *COMMON_MAPS]
    columns = dict.fromkeys(("gamma", "scale_ratio", "pre_var", "running_var", *(one.column for one in maps)))
    groups = by_site(channels[[*SITE, *columns]])
    profile = _variance_profile if stored else _deviation_profile if seen else _stored_profile
    return NetworkMap(
        column_names(groups),
        tuple(str(group["layer"].iloc[0]) for group in groups),
        profile(groups),
        tuple(channel_map(groups, one) for one in maps if channels[one.column].notna().any()),
    )


def _variance_profile(groups: list[pd.DataFrame]) -> Curves:
    return _profile(
        "input variance as a share of the running variance plus eps (median and middle half of the channels)",
        _spread(groups, "scale_ratio") ** 2,
        expected=1.0,
    )


def _deviation_profile(groups: list[pd.DataFrame]) -> Curves:
    return _profile(
        "standard deviation of the input (median and middle half of the channels)",
        np.sqrt(_spread(groups, "pre_var")),
    )


def _stored_profile(groups: list[pd.DataFrame]) -> Curves:
    """Without data: what batch norms divide by, or where no norm stores statistics, the learned scale."""
    stored = any(group["running_var"].notna().any() for group in groups)
    column = "running_var" if stored else "gamma"
    sizes = [group.assign(size=group[column].abs() ** (0.5 if stored else 1.0)) for group in groups]
    name = "running standard deviation" if stored else "|γ|"
    return _profile(f"{name} (median and middle half of the channels)", _spread(sizes, "size"))


def _profile(title: str, quartiles: Array, expected: float | None = None) -> Curves:
    low, mid, high = quartiles
    return Curves(title, (Line(mid),), Band(low, high), logarithmic=True, expected=expected)


def _spread(groups: list[pd.DataFrame], column: str) -> Array:
    """Quartiles of a column per site, shape (3, L)."""
    rows = [group[column][np.isfinite(group[column])] for group in groups]
    return np.array([np.quantile(row, (0.25, 0.5, 0.75)) if len(row) else [np.nan] * 3 for row in rows]).T


def _plain(head: str, value: str) -> str:
    """A value of a column in a sentence."""
    return kind_words(value) if head == "kind" else value


def _layer_table(tables: Tables) -> Table:
    layers = tables.layers
    unseen = NEEDS_DATA if (layers["mode"] == WEIGHTS_ONLY).all() else ONLY_WITHOUT_DATA
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    heads = [head for head in heads if head not in unseen]
    same = [
        head
        for head in ("kind", "mode", "normalized_by")
        if head in heads and len(layers) > 1 and layers[head].nunique() == 1
    ]
    note = "One row per layer. Hover over a head for the column of `report.layers` and its meaning."
    if same:
        values = (f"{heading(head)} {_plain(head, layers[head].iloc[0])}" for head in same)
        note += f" The same for all layers: {', '.join(values)}."
    shown = table(layers, [head for head in heads if head not in same], note)
    return replace(shown, layers=tuple(range(len(layers))))
