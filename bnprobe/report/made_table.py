"""Images made from running statistics, as plain data: how they were made, what was measured of them, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WHOLE, CLASSES, STATISTICS, PERMUTED = (
    "statistics and classes",
    "classes only",
    "statistics only",
    "permuted statistics",
)
REAL, NOISE = "real", "noise"
"""The rows of the table."""

NEAREST = "nearest"
"""Real images beside those of the first row."""


@dataclass(frozen=True)
class Sheet:
    """Some images of one row: pixels (k, H, W, 3), their classes, and what the judge took them for; -1 where that is not
    known."""

    name: str
    pixels: NDArray[np.uint8]
    classes: tuple[int, ...]
    guesses: tuple[int, ...]


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class MadeTable:
    """The fields of a `Made` that need no torch."""

    table: pd.DataFrame
    sheets: tuple[Sheet, ...]
    model: str
    judge: str
    n_classes: int | None
    shape: tuple[int, ...]
    steps: int
    seed: int
    seconds: float
    nearest: pd.DataFrame | None = None
    n_real: int = 0
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    class_names: tuple[str, ...] = ()


def row_of(made: MadeTable, name: str) -> pd.Series | None:
    """One row of the table; None where it was not made."""
    found = made.table[made.table["images"] == name]
    return None if found.empty else found.iloc[0]


def class_name(made: MadeTable, number: int) -> str:
    """What a class is called; its number where it has no name, nothing for -1."""
    if number < 0:
        return ""
    return made.class_names[number] if number < len(made.class_names) else f"{number:,}"
