"""Many checkpoints as one table: a row per file, a row per norm, and where one checkpoint stands among the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.errors import BnprobeError
from bnprobe.measures import Column
from bnprobe.recording import LayerRecord, Recording
from bnprobe.recording.terms import NEAR_ZERO
from bnprobe.report.numbers import count, number
from bnprobe.report.result import Report
from bnprobe.rules.wording import kind_words
from bnprobe.severity import SEVERITIES

FILE, NORM = "file", "norm"

COLUMNS = (
    Column("row", "Whether the row is about a file or about one of its norms.", unit="file or norm"),
    Column("path", "The checkpoint, as the list names it."),
    Column("size", "Size of the checkpoint.", unit="bytes"),
    Column("modified", "When it was last modified; 0 where it is remote.", unit="ns since 1970"),
    Column("etag", "What the server of a remote file says of its version."),
    Column("layer", "Path of the norm in the model."),
    Column("kind", "Kind of the norm, such as batch_norm."),
    Column("n_channels", "Channels of the norm."),
    Column("gamma_abs_low", "Smallest |γ| of the norm.", "min |γ|"),
    Column("gamma_abs_median", "Half of the norm's channels have a |γ| below this.", "median |γ|"),
    Column("gamma_abs_high", "Largest |γ| of the norm.", "max |γ|"),
    Column("gamma_near_zero", f"Share of the norm's channels with |γ| below {NEAR_ZERO:g}.", unit="0 to 1"),
    Column("beta_median", "Half of the norm's channels have a β below this.", "median β", "output"),
    Column(
        "running_mean_median",
        "Half of the norm's channels have a running mean below this.",
        "median μ",
        "input",
    ),
    Column("running_var_low", "Smallest running variance of the norm.", "min σ²", "input²"),
    Column(
        "running_var_median",
        "Half of the norm's channels have a running variance below this.",
        "median σ²",
        "input²",
    ),
    Column("running_var_high", "Largest running variance of the norm.", "max σ²", "input²"),
    Column("n_norms", "Norms of the file."),
    Column("n_parameters", "Numbers in the file that are no running statistics."),
    *(Column(severity, f"Findings of the file that are {severity}.") for severity in SEVERITIES),
    Column("rules", "Rules behind these findings, in alphabetical order."),
    Column("error", "Why the file could not be checked; empty where it was."),
)
"""Rows of files have no columns of norms, and the other way round."""

NAMES = tuple(column.name for column in COLUMNS)

KEY = ("path", "size", "modified", "etag")
"""What a file is known by: one that has these has been audited."""


WORDS = ("row", "path", "etag", "layer", "kind", "rules", "error")
"""Columns of text, empty where a row has none."""

WHOLE = ("size", "modified", "n_channels", "n_norms", "n_parameters", *SEVERITIES)
"""Columns of whole numbers, which some rows lack."""


def rows_of(report: Report, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one checkpoint: that of the file first."""
    found = report.findings
    n = found["severity"].value_counts()
    file = {
        **key,
        "row": FILE,
        "n_norms": len(report.recording.layers),
        "n_parameters": report.recording.about.n_parameters,
        **{severity: int(n.get(severity, 0)) for severity in SEVERITIES},
        "rules": " ".join(sorted(set(found["rule"]))),
        "error": "",
    }
    return [file, *({**key, "row": NORM, **_norm(record)} for record in report.recording.layers)]


def _norm(record: LayerRecord) -> dict[str, Any]:
    nothing = np.array([np.nan])
    gamma = nothing if record.gamma is None else np.abs(record.gamma)
    beta, mean, var = (
        nothing if vector is None else vector
        for vector in (record.beta, record.running_mean, record.running_var)
    )
    return {
        "layer": record.layer,
        "kind": record.kind,
        "n_channels": record.n_channels,
        "gamma_abs_low": gamma.min(),
        "gamma_abs_median": np.median(gamma),
        "gamma_abs_high": gamma.max(),
        "gamma_near_zero": np.nan if record.gamma is None else (gamma < NEAR_ZERO).mean(),
        "beta_median": np.median(beta),
        "running_mean_median": np.median(mean),
        "running_var_low": var.min(),
        "running_var_median": np.median(var),
        "running_var_high": var.max(),
    }


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with all columns; counts are whole numbers, also where some rows have none."""
    return _typed(pd.DataFrame(rows, columns=list(NAMES)))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    numbers = [name for name in NAMES if name not in (*WORDS, *WHOLE)]
    table = table.astype(dict.fromkeys(WHOLE, "Int64") | dict.fromkeys(numbers, "float64"))
    return table.assign(**{name: table[name].astype(object).where(table[name].notna(), "") for name in WORDS})


def demand_audit(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table, if it is one of an audit. Raises BnprobeError else."""
    missing = [column for column in NAMES if column not in table]
    if missing:
        raise BnprobeError(
            f"{name} is no table of an audit: it has no column {missing[0]}. Make one with bnprobe audit LIST -o FILE."
        )
    try:
        held = _typed(table[list(NAMES)])
    except (TypeError, ValueError, OverflowError):
        held = table_of([])  # a number that is none
    known = (
        held["row"].isin((FILE, NORM))
        & (held["path"] != "")
        & held["size"].notna()
        & held["modified"].notna()
    )
    if len(held) != len(table) or not known.all():
        raise BnprobeError(
            f"{name} is no table of an audit: a row is not as one writes it. Make one with bnprobe audit LIST -o FILE."
        )
    return held


def standing(recording: Recording, path: str, table: pd.DataFrame, name: str) -> str:
    """Where a checkpoint's |γ| stand among those of a table, a line for each kind of norm; itself is left out."""
    others = table[(table["row"] == NORM) & (table["path"] != path)]
    typical = others.groupby(["kind", "path"])["gamma_abs_median"].median().dropna()
    return "\n".join(_standing(recording, typical, name))


def _standing(recording: Recording, typical: pd.Series, name: str) -> Iterator[str]:
    mine: dict[str, list[float]] = {}
    for record in recording.layers:
        if record.gamma is not None:
            mine.setdefault(record.kind, []).append(float(np.median(np.abs(record.gamma))))
    for kind, values in mine.items():
        words, value = kind_words(kind), float(np.median(values))
        known = typical.xs(kind) if kind in typical.index.get_level_values(0) else typical.iloc[:0]
        if known.empty:
            yield f"Typical |γ| of {words}s: {number(value, 2)}. No other checkpoint in {name} has {words}s."
            continue
        smaller, larger = float((known > value).mean()), float((known < value).mean())
        side, share = ("smaller", smaller) if smaller >= larger else ("larger", larger)
        where = f"{side} than in {share:.0%} of {count(len(known), 'checkpoint')} in {name}"
        yield f"Typical |γ| of {words}s: {number(value, 2)}, {where} (median there {number(float(known.median()), 2)})."
