"""A study as a file: written as JSON, and read again with every column checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from bnprobe.errors import BadRecordingFile
from bnprobe.files import read_input
from bnprobe.report.figures.worth_by_depth import BECOMES
from bnprobe.report.formats.json import SCHEMA_VERSION, to_json
from bnprobe.report.study_table import LEVELS, NEUTRAL, StudyTable

SCHEMA = "study"
LARGEST = 2**28
"""Bytes that are read: a hundred times what a network of a thousand norms takes."""
AGAIN = "Measure again with bnprobe.ablate, and write the file with Study.save."

Check = Callable[[Any], bool]


def encoded(study: StudyTable) -> bytes:
    """The fields of a study; its table by columns. NaN is null."""
    contents = {field.name: getattr(study, field.name) for field in fields(StudyTable)}
    columns = {str(name): study.table[name].tolist() for name in study.table}
    return to_json(SCHEMA, {**contents, "table": columns}).encode()


def decoded(path: Path) -> dict[str, Any]:
    """The fields of a study. Raises BadRecordingFile for what is none, names what is wrong, and says what to do."""
    try:
        content = json.loads(read_input(path, LARGEST))
    except OSError as error:
        raise BadRecordingFile(
            f"{path.name}: {error.strerror or error}. Pass a file of Study.save."
        ) from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadRecordingFile(
            f"{path.name}: this is not JSON ({reason}). Pass a file of Study.save."
        ) from None
    if not isinstance(content, dict) or content.get("schema") != f"bnprobe/{SCHEMA}":
        raise BadRecordingFile(f"{path.name}: this is no study. Pass a file of Study.save.")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise BadRecordingFile(
            f"{path.name}: its schema is {content.get('schema_version')!r:.20}, this bnprobe reads {SCHEMA_VERSION}. Update "
            "bnprobe."
        )
    for name, check in _FIELDS.items():
        if name not in content or not check(content[name]):
            raise BadRecordingFile(f"{path.name}: {name} is missing or wrong. {AGAIN}")
    found = {name: content[name] for name in _FIELDS}
    return {**found, "notes": tuple(found["notes"]), "table": _table(path, content.get("table"))}


def _table(path: Path, columns: Any) -> pd.DataFrame:
    if not isinstance(columns, Mapping) or not all(isinstance(columns.get(name), list) for name in _COLUMNS):
        raise BadRecordingFile(f"{path.name}: table: columns are missing. {AGAIN}")
    if len({len(columns[name]) for name in _COLUMNS}) > 1 or not columns["layer"]:
        raise BadRecordingFile(f"{path.name}: table: its columns must be of one length, 1 or more. {AGAIN}")
    for name, check in _COLUMNS.items():
        wrong = next((i for i, value in enumerate(columns[name]) if not check(value)), None)
        if wrong is not None:
            value = columns[name][wrong]
            raise BadRecordingFile(f"{path.name}: table: {name} of row {wrong} is {value!r:.40}. {AGAIN}")
    table = pd.DataFrame({name: columns[name] for name in _COLUMNS})
    numbers = [name for name, check in _COLUMNS.items() if check is _number]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*values: str) -> Check:
    return lambda value: _text(value) and value in values


_FIELDS: dict[str, Check] = {
    "model": _text,
    "metric": _text,
    "n_samples": _whole,
    "seconds": lambda value: value is not None and _number(value),
    "seed": _whole,
    "notes": lambda value: isinstance(value, list) and all(map(_text, value)),
    "interrupted": _flag,
}
_COLUMNS: dict[str, Check] = {
    "level": _one_of(*LEVELS),
    "layer": _text,
    "vector": _one_of(*NEUTRAL),
    "replacement": _one_of(*BECOMES),
    "before": _number,
    "after": _number,
    "difference": _number,
    "low": _number,
    "high": _number,
    "agreement": _number,
    "kl": _number,
    "n": _whole,
    "difference_rest": _number,
    "estimated": _flag,
    "estimate": _number,
}
"""In the order of the table."""
