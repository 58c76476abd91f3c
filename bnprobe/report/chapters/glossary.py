"""The glossary: what every column means, for the page, and one column in words."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from bnprobe.errors import NotDefined
from bnprobe.measures import Column
from bnprobe.report.page.blocks import Entry, Glossary, Section

CLOSE = 0.75
"""Likeness from which a name may be a slip of the asked one; below it, suggestions are noise."""


def glossary_section(columns: Iterable[Column]) -> Section:
    """Every column, folded."""
    entries = tuple(Entry(c.name, c.meaning, c.formula, c.unit, c.source) for c in columns)
    return Section("glossary", "Glossary", (Glossary(entries),), folded=True, hint="every column, in words")


def explain(columns: Iterable[Column], name: str) -> str:
    """One column in words: its meaning, and where there are any its formula, unit and source.

    Raises NotDefined, with the nearest names, where there is no such column.
    """
    known = {column.name: column for column in columns}
    if name not in known:
        near = get_close_matches(name, known, 3, CLOSE)
        hint = f"Did you mean {' or '.join(near)}?" if near else "The page's glossary lists every column."
        raise NotDefined(f"there is no column {name!r}. {hint}")
    column = known[name]
    facts = (("Formula", column.formula), ("Unit", column.unit), ("Source", column.source))
    return "\n".join([f"{name}: {column.meaning}", *(f"  {what}: {text}" for what, text in facts if text)])
