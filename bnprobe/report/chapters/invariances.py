"""What must not move outputs: the last token, padding and other samples of the batch, as they were tried on the model."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bnprobe.report.numbers import number
from bnprobe.report.page.blocks import Cell, Prose, Section, Table

TITLE = "What must not move outputs"

HEADS = (
    ("probe", "What was changed: the last token (causality), padding, or the other samples of the batch"),
    ("outputs", "Whether outputs that must not depend on it stay, up to rounding"),
    ("largest change", "Of one number of the outputs"),
    ("largest output", "What the change is to be compared with"),
    ("starts in", "The first module that is given the same and gives something else"),
    ("first norm", "The first norm whose input changes"),
    ("samples", "Samples or sequences on which it was tried"),
)


def chapter(table: pd.DataFrame, sentences: Sequence[str]) -> Section:
    """A sentence per probe, and a row per probe as `bnprobe.invariances` found it."""
    rows = tuple(_row(row) for _, row in table.iterrows())
    return Section("invariances", TITLE, (Prose(tuple(sentences)), Table(HEADS, rows)), short="Invariances")


def _row(row: pd.Series) -> tuple[Cell, ...]:
    words = {True: "stay", False: "change", None: "not tried"}[row["holds"]]
    if row["holds"] is False and not row["meant"]:
        words += ", as meant"
    tried = row["holds"] is not None
    return (
        Cell(str(row["probe"]), number=False),
        Cell(words, number=False),
        Cell(number(row["largest_change"]) if tried else ""),
        Cell(number(row["largest_output"]) if tried else ""),
        Cell(str(row["culprit"]), number=False),
        Cell(str(row["first_norm"]), number=False),
        Cell(f"{int(row['n']):,}"),
    )
