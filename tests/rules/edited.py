"""Tables of a healthy recording, with single cells set to what a rule shall meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from measures.sites import memory_of, recording, site, some_rows

import bnprobe
from bnprobe.measures import tables
from bnprobe.recording import LayerRecord
from bnprobe.rules import COMPARED, RULES, Finding
from bnprobe.rules.rule import Evidence
from bnprobe.rules.thresholds import DEFAULT, Limits

ROWS = some_rows(40)
HEALTHY = {"gamma": [0.5, -0.7, 1.2], "beta": 0.1, **memory_of(ROWS)}


def healthy(layer: str = "bn", **changes: Any) -> LayerRecord:
    """A trained norm of three channels that sees what it was trained on: no rule speaks of it."""
    return site(ROWS, layer, **{**HEALTHY, **changes})


def evidence(*layers: LayerRecord, limits: Limits = DEFAULT) -> Evidence:
    """What the rules look at in a recording of these sites."""
    return Evidence.of(tables(recording(*layers or (healthy(),))), limits)


def compared(limits: Limits = DEFAULT) -> Evidence:
    """What the rules about two recordings look at, where both are the same."""
    one = recording(healthy())
    comparison = bnprobe.compare(one, one)
    layers, channels = comparison.layers, comparison.channels
    return Evidence(layers, channels, comparison.unmatched, limits)


def edited(found: Evidence, channels: Mapping[str, Any] | None = None, at: int = 0, **row: Any) -> Evidence:
    """The same with other cells: `row` in the line `at` of the layers, `channels` in the columns of its channels."""
    layers, of_channels = found.layers.astype(object), found.channels.astype(object)
    line = layers.index[at]
    mine = (of_channels["layer"] == layers.at[line, "layer"]) & (
        of_channels["call"] == layers.at[line, "call"]
    )
    for name, value in row.items():
        assert name in layers, name
        layers.at[line, name] = value
    # a row and its channels name the same call
    of_channels.loc[mine, "call"] = layers.at[line, "call"]
    for name, value in (channels or {}).items():
        assert name in of_channels, name
        values = value if isinstance(value, list) else [value] * int(mine.sum())
        of_channels.loc[mine, name] = pd.Series(values, index=of_channels.index[mine], dtype=object)
    return replace(found, layers=layers.infer_objects(), channels=of_channels.infer_objects())


def edited_rows(*rows: Mapping[str, Any]) -> Evidence:
    """A norm for each row, "a", "b", ..., with these cells."""
    found = evidence(*(healthy(name) for name in "abcdef"[: len(rows)]))
    for i, row in enumerate(rows):
        found = edited(found, at=i, **row)
    return found


def frame(**columns: Any) -> pd.DataFrame:
    """The columns that one rule looks at, of the channels of a single norm."""
    return pd.DataFrame({name: list(values) for name, values in columns.items()})


def findings(rule: str, found: Evidence) -> list[Finding]:
    """What one rule says of these tables."""
    (one,) = (one for one in (*RULES, *COMPARED) if one.id == rule)
    return list(one.find(found))
