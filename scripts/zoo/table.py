"""The tables of python -m scripts.zoo: a row per model for machines, a row per family for people."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from scripts.zoo.trial import ATTACHED, DONE, OK, REFUSED, Row

COLUMNS = [column.name for column in fields(Row)]
NUMBERS = {column.name: type(column.default) for column in fields(Row) if column.default in (0, 0.0)}


def read(path: Path) -> list[Row]:
    """The rows of an earlier run; none where there is no file, or its columns are of another version."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if lines.fieldnames != COLUMNS:
            return []
        return [Row(**{name: NUMBERS.get(name, str)(line[name]) for name in COLUMNS}) for line in lines]


def merge(old: Iterable[Row], new: Iterable[Row], order: Sequence[str]) -> list[Row]:
    """One row per model, the new one where there are two, in the order of the library."""
    known = {row.model: row for row in (*old, *new)}
    return [known[name] for name in order if name in known]


def write_csv(rows: Iterable[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, rows))


def write_markdown(rows: Sequence[Row], path: Path, command: str) -> None:
    path.write_text("\n".join(_markdown(rows, path, command)) + "\n", encoding="utf-8")


def _markdown(rows: Sequence[Row], path: Path, command: str) -> list[str]:
    families = {row.family: [r for r in rows if r.family == row.family] for row in rows}
    expected = [row for row in rows if row.outcome in (OK, REFUSED, ATTACHED)]
    library = rows[0].library
    return [
        f"# Every architecture of {library}" if library == "torchvision" else f"# A sample of {library}",
        "",
        f"{len(expected)} of {len(rows)} as expected: {_number(rows, OK)} ran bare and probed with outputs, gradients, "
        f"buffers and random state the same to the bit, {_number(rows, REFUSED)} have no norms and are refused in one "
        f"line, {_number(rows, ATTACHED)} were attached to only. Random weights, smallest inputs; {_total(rows)} in all, "
        f"one thread per model. A row per model is in [{path.stem}.csv]({path.stem}.csv). Made by `{command}`.",
        "",
        "| family | models | as expected | norms | sites | followers known | gradients | kinds | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|---|---:|",
        *(_family(name, part) for name, part in sorted(families.items())),
        "",
        *_notes("Without norms, refused", [row for row in rows if row.outcome == REFUSED]),
        *_notes("Attached only", [row for row in rows if row.outcome == ATTACHED]),
        *_notes("Forward pass only", [r for r in rows if r.outcome == OK and r.backward != DONE], "backward"),
        *_notes("Not as expected", [row for row in rows if row not in expected], "says"),
    ]


def _family(name: str, rows: Sequence[Row]) -> str:
    expected = sum(row.outcome in (OK, REFUSED, ATTACHED) for row in rows)
    kinds = sorted({kind.partition(" ")[2] for row in rows for kind in row.kinds.split(", ") if kind})
    sums = [sum(getattr(row, column) for row in rows) for column in ("norms", "sites", "known", "gradients")]
    cells = (name, len(rows), expected, *sums, ", ".join(kinds) or "–", f"{sum(r.seconds for r in rows):.0f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def _notes(title: str, rows: Sequence[Row], column: str = "") -> list[str]:
    if not rows:
        return []
    named = [f"`{row.model}`" + (f" ({getattr(row, column)})" if column else "") for row in rows]
    return [f"{title}: {', '.join(named)}.", ""]


def _number(rows: Iterable[Row], outcome: str) -> int:
    return sum(row.outcome == outcome for row in rows)


def _total(rows: Iterable[Row]) -> str:
    return f"{sum(row.seconds for row in rows) / 60:.0f} minutes"
