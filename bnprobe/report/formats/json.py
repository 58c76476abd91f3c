"""Anything of ours as strict JSON: tables as rows, specs and blocks by their fields; what is not a number is null.

One envelope holds every document: `schema` says what it is, `schema_version` in which form, and `version` which
bnprobe wrote it. Keys keep the order in which they were given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.version import __version__

SCHEMA_VERSION = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""


def to_json(schema: str, contents: Mapping[str, Any]) -> str:
    """The envelope and in it `contents`, as JSON text that ends with a line break."""
    head = {
        "schema": f"bnprobe/{schema}",
        "schema_version": SCHEMA_VERSION,
        "tool": "bnprobe",
        "version": __version__,
    }
    return dumped(plain({**head, **contents}))


def dumped(value: Any) -> str:
    """Plain data as text in ASCII, so that no name in it is more than a name to whatever prints it."""
    return json.dumps(value, indent=1, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def plain(value: Any) -> Any:
    """The value in what JSON has: objects, lists, text, numbers, true, false and null.

    NaN, infinities and pandas' NA and NaT are null; numpy's numbers are numbers, its arrays lists; a DataFrame is a
    list of rows; a dataclass is its fields with the name of its class under `type`; a named tuple is its fields.
    Raises TypeError for anything else, which would otherwise get in as its repr.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, pd.DataFrame):
        return rows(value)
    return _composed(value)


def _composed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        inside = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **inside}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no form in JSON: {value!r:.80}")


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as a list of objects, one per row, with the columns as keys in their order."""
    return [{str(name): plain(value) for name, value in row.items()} for row in table.to_dict("records")]
