"""Rows of a frame as a table of the page, every head with its meaning from the glossary."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnprobe.measures import glossary
from bnprobe.recording import site_name
from bnprobe.report.numbers import number, shorten
from bnprobe.report.page.blocks import Cell, Table


def of_all(frame: pd.DataFrame, most: int, if_cut: str = "") -> str:
    """What the note of a table of the first `most` rows of a frame adds where there are more; "" where all are shown."""
    return f"{if_cut}: {most:,} of {len(frame):,}" if len(frame) > most else ""


def table(frame: pd.DataFrame, heads: list[str], note: str = "") -> Table:
    """These columns of a frame, numbers in three digits; a layer's name says which call of it the row is about."""
    meanings = {column.name: column.meaning for column in glossary()}
    return Table(
        tuple((head, meanings[head]) for head in heads),
        tuple(zip(*(cells(frame, head) for head in heads), strict=True)),
        note,
    )


def cells(frame: pd.DataFrame, head: str) -> list[Cell]:
    """One column as it is printed."""
    if head == "layer" and "call" in frame and "channel" not in frame:
        names = (shorten(name, 40) for name in frame["layer"])
        return [
            Cell(site_name(name, call), number=False) for name, call in zip(names, frame["call"], strict=True)
        ]
    return [_cell(value) for value in frame[head].tolist()]


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(shorten(value, 40), number=False)
    return Cell(number(float(value)))
