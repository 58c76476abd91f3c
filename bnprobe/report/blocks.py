"""What a page is made of: small frozen nouns between the facts and the HTML or terminal text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain words."""

    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """One entry of a table: its text, and whether it is a number (aligned right)."""

    text: str
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table whose headers explain themselves: `heads` are (name, meaning) pairs."""

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture, drawn when it is needed; `alt` says in words what it shows.

    `draw` returns a matplotlib figure. `name` is unique on the page.
    """

    name: str
    alt: str
    draw: Callable[[], Any]
    caption: str = ""


@dataclass(frozen=True)
class FindingGroup:
    """One rule's findings of one severity that say the same, with the layers they hold for."""

    severity: str
    rule: str
    says: str
    places: tuple[str, ...]
    because: tuple[str, ...]
    do: str
    source: str


@dataclass(frozen=True)
class Findings:
    """All findings, the most severe first; `nothing` is said where there are none."""

    groups: tuple[FindingGroup, ...]
    nothing: str


@dataclass(frozen=True)
class Entry:
    """A line of the glossary."""

    name: str
    meaning: str
    formula: str
    unit: str
    source: str


@dataclass(frozen=True)
class Glossary:
    """What every column means."""

    entries: tuple[Entry, ...]


Block = Prose | Facts | Table | Figure | Findings | Glossary


@dataclass(frozen=True)
class Section:
    """A titled part of the page. `folded` sections open on request, and are open on paper."""

    id: str
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False
    hint: str = ""
    parts: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    footer: str
