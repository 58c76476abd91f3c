"""What a column of the tables means: the first reader of a measure is its glossary line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Columns = Mapping[str, Any]
"""Channel columns of one site by name, shape (C,) each."""


@dataclass(frozen=True)
class Column:
    """One column: what it says in a sentence, its formula, its unit, and where it comes from.

    `table` is "channels", "layers" or "both".
    """

    name: str
    meaning: str
    formula: str = ""
    unit: str = ""
    source: str = ""
    table: str = "channels"
