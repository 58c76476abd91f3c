"""What the page carries for its moving part: a manifest in JSON, and named columns packed as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.measures.norm_roles import is_transformer, names_by_role
from bnprobe.recording import LayerRecord, Recording
from bnprobe.report.browser.densities import EDGES, Bytes, place_after, place_before, same_counts, steps
from bnprobe.report.browser.derived import derived_columns
from bnprobe.report.browser.exemplars import exemplars_of
from bnprobe.report.browser.first_look import first_measure
from bnprobe.report.browser.measures import as_drawn, chosen_columns, menu, paints
from bnprobe.report.browser.packing import KEPT_BITS, ROUGH_BITS, pack_bytes, pack_floats
from bnprobe.report.numbers import visible
from bnprobe.report.vocabulary import role_label

ROLES = ("dead", "constant", "rare", "mixed", "linear", "saturated", "unknown")
"""In the order of their codes on the page."""


@dataclass(frozen=True)
class Data:
    """`manifest` is JSON that may stand inside a script element; `blobs` are (name, text) pairs."""

    manifest: str
    blobs: tuple[tuple[str, str], ...]


def data_of(
    recording: Recording,
    tables: Tables,
    findings: pd.DataFrame,
    images: Path | None = None,
) -> Data:
    """Everything the scripts draw from: layers, findings, channel columns and histograms, exemplars.

    Files of exemplars are looked for below `images`.
    """
    channels = tables.channels
    known = [str(name) for name in channels if channels[name].notna().any()]
    eps = np.repeat(
        [record.eps for record in recording.layers], [record.n_channels for record in recording.layers]
    )
    free = derived_columns(channels, eps)
    shown, left_out = chosen_columns(known, free, len(channels))
    histograms, places, blobs = packed_histograms(recording.layers)
    blobs += [(f"column-{name}", packed_column(channels[name])) for name in shown if name not in free]
    exemplars, more = exemplars_of(recording, images)
    blobs += more
    meanings = {column.name: column for column in glossary()}
    initial = _is_initial(channels)
    painted = {
        name: paint
        for name, paint in paints().items()
        if name in shown and not (paint.against_running and initial)
    }
    short = names_by_role(tables.layers) if is_transformer(tables.layers) else [""] * len(recording.layers)
    manifest = {
        "model": visible(recording.about.model),
        "layers": [
            {**layer_entry(record, row.get("follows")), **places[i], "short": short[i]}
            for i, (record, row) in enumerate(
                zip(recording.layers, tables.layers.to_dict("records"), strict=True)
            )
        ],
        "columns": {name: {"meaning": meanings[name].meaning, "unit": meanings[name].unit} for name in shown},
        "derived": [name for name in shown if name in free],
        "leftOut": left_out,
        "paints": {name: as_drawn(paint) for name, paint in painted.items()},
        "groups": menu(painted),
        "first": first_measure(findings, channels, painted),
        "gamma": "gamma",
        "sort": ["shift", "pre_kurtosis", "gamma"],
        "roles": ROLES,
        "roleLabels": [role_label(role) for role in ROLES],
        "edges": EDGES if histograms else [],
        "findings": finding_places(findings, recording.layers),
        "exemplars": exemplars,
    }
    return Data(as_json(manifest), tuple(blobs))


def packed_column(column: pd.Series) -> str:
    """Its numbers, or the codes of its roles."""
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        codes = {name: code for code, name in enumerate(ROLES)}
        return pack_floats(column.map(codes).to_numpy(dtype=float))
    kept = ROUGH_BITS if str(column.name).endswith(("_se", "_q", "_predicted")) else KEPT_BITS
    return pack_floats(column.to_numpy(dtype=float), kept)


def layer_entry(record: LayerRecord, follows: Any) -> dict[str, Any]:
    """What the page knows of a layer before its columns are unpacked; `follows` is text where it is known."""
    return {
        "name": record.layer,
        "call": record.call,
        "kind": record.kind,
        "n": record.n_channels,
        "eps": record.eps,
        "running": record.has_running,
        "measured": bool(record.n_calls),
        "follows": follows if isinstance(follows, str) else "",
    }


def packed_histograms(
    records: Sequence[LayerRecord], drawn: bool = True
) -> tuple[bool, list[dict[str, Any]], list[tuple[str, str]]]:
    """Whether there are any, where each layer's stand, and the packed bytes."""
    before: list[Bytes] = []
    after: list[Bytes] = []
    explicit = {name: np.full(_n_channels(records), np.nan) for name in _PLACES}
    places: list[dict[str, Any]] = []
    start = 0
    for record in records:
        places.append(_place(record, before, after, explicit, start) if drawn else dict(_NOWHERE))
        start += record.n_channels
    blobs = [
        (name, pack_bytes(np.concatenate(parts)))
        for name, parts in (("before", before), ("after", after))
        if parts
    ]
    blobs += [
        (f"column-{name}", pack_floats(values))
        for name, values in explicit.items()
        if np.isfinite(values).any()
    ]
    return bool(before or after), places, blobs  # fmt: skip


_NOWHERE: dict[str, Any] = {"before": -1, "after": -1, "placeBefore": "", "placeAfter": ""}
_PLACES = ("before_centre", "before_scale", "after_centre", "after_scale")


def _place(
    record: LayerRecord,
    before: list[Bytes],
    after: list[Bytes],
    explicit: dict[str, Any],
    start: int,
) -> dict[str, Any]:
    """Where the layer's histograms stand among all of them (rows, -1 for none), and what sets their bins."""
    place = dict(_NOWHERE)
    mine = slice(start, start + record.n_channels)
    pre, post = record.pre_histogram, record.post_histogram
    if pre is not None:
        place |= {"before": sum(map(len, before)), "placeBefore": place_before(record)}
        before.append(steps(pre))
        if place["placeBefore"] == "own":
            explicit["before_centre"][mine], explicit["before_scale"][mine] = pre.centre[0], pre.scale[0]
    if post is not None:
        place["placeAfter"] = place_after(record)
        if pre is not None and same_counts(pre, post, record.gamma):
            place["after"] = "turned"
        else:
            place["after"] = sum(map(len, after))
            after.append(steps(post))
        if place["placeAfter"] == "own":
            explicit["after_centre"][mine], explicit["after_scale"][mine] = post.centre[0], post.scale[0]
    return place


def _n_channels(layers: Sequence[LayerRecord]) -> int:
    return sum(record.n_channels for record in layers)


def _is_initial(channels: pd.DataFrame) -> bool:
    """Whether all running statistics are those that a norm is made with, so that distances from them mean nothing."""
    stored = channels["running_mean"].notna()
    mean, var = channels["running_mean"][stored], channels["running_var"][stored]
    return bool(stored.any() and (mean == 0).all() and (var == 1).all())


def finding_places(findings: pd.DataFrame, records: Sequence[LayerRecord]) -> list[dict[str, Any]]:
    """Rule, severity, sentence and, by layer, the channels concerned (none where it is the layer itself)."""
    position = {(record.layer, record.call): i for i, record in enumerate(records)}
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in findings.to_dict("records"):
        key = (str(row["severity"]), str(row["rule"]), str(row["says"]))
        group = groups.setdefault(key, {"severity": key[0], "rule": key[1], "says": key[2], "places": []})
        at = position.get((row["layer"], row["call"]))
        if at is not None:
            group["places"].append([at, [int(c) for c in row["channels"]]])
    return list(groups.values())


def as_json(value: Any) -> str:
    """JSON that no parser of HTML can take for markup, whatever names it holds."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
