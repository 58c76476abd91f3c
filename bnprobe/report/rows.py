"""Rows of a frame as a table of the page, every head with its meaning from the glossary."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnprobe.measures import glossary
from bnprobe.report.blocks import Cell, Table
from bnprobe.report.words import number, shorten


def table(frame: pd.DataFrame, heads: list[str], note: str = "") -> Table:
    """These columns of a frame, numbers in three digits."""
    meanings = {column.name: column.meaning for column in glossary()}
    return Table(
        tuple((head, meanings[head]) for head in heads),
        tuple(zip(*([_cell(value) for value in frame[head].tolist()] for head in heads), strict=True)),
        note,
    )


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(shorten(value, 40), number=False)
    return Cell(number(float(value)))
