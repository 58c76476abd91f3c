"""What the page of a comparison carries for its moving part: columns and histograms of both sides, and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.comparison import Differences, Pairs, glossary
from bnprobe.measures.columns import Paint
from bnprobe.recording import LayerRecord
from bnprobe.report.browser import Data
from bnprobe.report.browser.contents import (
    as_json,
    finding_places,
    layer_entry,
    packed_column,
    packed_histograms,
)
from bnprobe.report.browser.densities import EDGES
from bnprobe.report.browser.measures import as_drawn, paints
from bnprobe.report.numbers import visible
from bnprobe.stats.moments import Array

DIFFERENCES = {
    "pre_mean": ("pre_shift", "shift of the inputs, in σ"),
    "pre_var": ("pre_ratio", "standard deviation of the inputs, B / A"),
    "fires": ("fires_change", "change of the share of positive outputs"),
    "post_mean": ("post_shift", "shift of the outputs, in σ of the layer"),
    "post_var": ("post_ratio", "standard deviation of the outputs, B / A"),
    "gamma": ("affine_ratio", "|γ|, B / A"),
    "beta": ("affine_shift", "shift of β, in |γ| of the layer"),
    "running_mean": ("running_shift", "shift of the running mean, in running σ"),
    "running_var": ("running_ratio", "running standard deviation, B / A"),
}
"""What both sides show, and the column and the words of its difference."""

ERRORS = ("pre_shift_se", "pre_w1", "pre_gap", "post_gap", "running_gap", "affine_gap")
"""Further columns of the table of channels."""

SORT = ["pre_gap", "post_gap", "running_gap", "affine_gap"]
MOST_CHANNELS = 40_000
"""Channels above which a page has no histograms."""


def has_histograms(channels: pd.DataFrame) -> bool:
    """Whether a page holds the histograms of so many channels."""
    return len(channels) <= MOST_CHANNELS


def data_of(found: Pairs, tables: Differences, findings: pd.DataFrame) -> Data:
    """Everything that the scripts draw from."""
    channels = tables.channels
    if tables.apart:
        channels = channels.assign(**_by_rank(channels))
    sides = {name: _sides(name, channels) for name in DIFFERENCES}
    sides = {name: columns for name, columns in sides.items() if any(columns)}
    columns = [column for three in sides.values() for column in three if column]
    columns += [name for name in ERRORS if channels[name].notna().any()]
    meanings = {column.name: column for column in glossary()}
    drawn = has_histograms(channels)
    places, blobs = [], [(f"column-{name}", packed_column(channels[name])) for name in columns]
    for side in ("a", "b"):
        _, at, packed = packed_histograms([getattr(pair, side) for pair in found.common], drawn)
        places.append(at)
        blobs += [(f"{name}_{side}", text) for name, text in packed]
    records = [pair.a for pair in found.common]
    manifest = {
        "model": visible(records[0].layer),
        "compared": True,
        "apart": bool(tables.apart),
        "layers": [
            {**layer_entry(pair.a, _follows(pair.a)), **at_a, "b": {**layer_entry(pair.b, ""), **at_b}}
            for pair, at_a, at_b in zip(found.common, *places, strict=True)
        ],
        "columns": {
            name: {"meaning": meanings[name].meaning, "unit": meanings[name].unit} for name in columns
        },
        "derived": [],
        "leftOut": [],
        "paints": {
            column: as_drawn(paint) for column, paint in _paints(sides, channels, bool(tables.apart)).items()
        },
        "groups": {},
        "sides": sides,
        "first": _first(sides, tables.layers),
        "gamma": "gamma_a",
        "sort": SORT,
        "roles": [],
        "roleLabels": [],
        "edges": EDGES if any(name.startswith(("before", "after")) for name, _ in blobs) else [],
        "findings": finding_places(findings, records),
    }
    return Data(as_json(manifest), tuple(blobs))


def _follows(record: LayerRecord) -> str:
    return "" if record.neighbours is None else record.neighbours.follows


def _sides(name: str, channels: pd.DataFrame) -> list[str]:
    """The columns of A, of B and of the difference; "" where there is none."""
    columns = (f"{name}_a", f"{name}_b", DIFFERENCES[name][0])
    return [column if column in channels and channels[column].notna().any() else "" for column in columns]


def _paints(sides: Mapping[str, Sequence[str]], channels: pd.DataFrame, apart: bool) -> dict[str, Paint]:
    """Both sides in the same colors, whatever the measure."""
    of_measures = paints()
    found: dict[str, Paint] = {}
    for name, (a, b, difference) in sides.items():
        paint = of_measures[name]
        if paint.limits is None and paint.scale == "even":
            values = np.abs(channels[[column for column in (a, b) if column]].to_numpy(dtype=np.float64))
            reach = (
                float(np.quantile(values[np.isfinite(values)], 0.98)) if np.isfinite(values).any() else 0.0
            )
            paint = replace(paint, limits=(-reach, reach) if reach > 0 else (-1.0, 1.0))
        found |= {
            column: replace(paint, label=f"{side}: {paint.label}")
            for side, column in (("A", a), ("B", b))
            if column
        }
        if difference:
            words = _of_sorted(DIFFERENCES[name][1]) if apart else DIFFERENCES[name][1]
            scale = ("log", 1.0, (0.5, 2.0)) if difference.endswith("_ratio") else ("even", 0.0, (-1.0, 1.0))
            found[difference] = Paint(paint.group, words, "diverging", *scale)
    return found


def _of_sorted(words: str) -> str:
    """The words of a difference where not channels are compared but their values in order."""
    quantity, _, unit = words.partition(", in ")
    return f"{quantity}{', in σ over the layer' if unit else ''}, channels sorted on each side"


def _first(sides: Mapping[str, Sequence[str]], layers: pd.DataFrame) -> str:
    """The difference that is largest by the gaps of the layers, else what there is."""
    aspects = (
        ("pre", ("pre_mean", "pre_var")),
        ("running", ("running_mean", "running_var")),
        ("affine", ("beta", "gamma")),
    )
    sized = sorted(aspects, key=lambda one: -float(np.nan_to_num(layers[f"{one[0]}_gap"].max())))
    for _, names in sized:
        for name in names:
            if name in sides and sides[name][2]:
                return sides[name][2]
    return next(column for three in sides.values() for column in three if column)


def _by_rank(channels: pd.DataFrame) -> dict[str, Array]:
    """Differences of sides whose channels do not correspond: of the largest to the largest, and so on within a layer."""
    groups = [group.index.to_numpy() for _, group in channels.groupby(["layer", "call"], sort=False)]
    found: dict[str, Array] = {}
    for name, (difference, _) in DIFFERENCES.items():
        a, b = (channels[f"{name}_{side}"].to_numpy(dtype=np.float64) for side in ("a", "b"))
        values = np.full(len(channels), np.nan)
        for rows in groups:
            order = np.argsort(-a[rows], kind="stable")
            values[rows[order]] = _difference(
                name, np.sort(a[rows])[::-1], np.sort(b[rows])[::-1], a[rows], b[rows]
            )
        found[difference] = values
    return found


def _difference(name: str, a: Array, b: Array, all_a: Array, all_b: Array) -> Array:
    """As the columns of the same name: ratios of sizes, and shifts in the spread of both sides over the layer."""
    with np.errstate(all="ignore"):
        if name.endswith("_var"):
            return np.sqrt(b / a)
        if name == "gamma":
            return np.abs(b / a)
        if name == "fires":
            return b - a
        return np.asarray((b - a) / np.sqrt((np.nanvar(all_a) + np.nanvar(all_b)) / 2))
