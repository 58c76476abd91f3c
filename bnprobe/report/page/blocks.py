"""What a page is made of: small frozen nouns between the facts and the HTML or terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnprobe.report.figures.specs import Picture
from bnprobe.report.numbers import count


@dataclass(frozen=True)
class Prose:
    """Paragraphs of plain words."""

    paragraphs: tuple[str, ...]


Bars = tuple[float | None, ...]
"""A bar per norm: its share of the full height, from 0 to 1."""


@dataclass(frozen=True)
class Headline:
    """The verdict, and all of it in a sentence as `text`.

    `state` is "good", "unknown" (too few samples to say, or none), "untrained", "notice", "warning", "critical", or
    "plain" for an answer that is neither good nor bad news.
    """

    state: str
    title: str
    detail: str
    text: str


@dataclass(frozen=True)
class Tile:
    """One question with its answer: a state, a few words, and a bar per norm.

    `state` is one of a headline, or "unknown" where it was not measured. `bars` are shares of the full height, None
    where a norm has none; those in `high` stand out. `link` is the id of the section that says more, if there is one.
    """

    question: str
    state: str
    says: str
    bars: Bars = ()
    high: tuple[bool, ...] = ()
    link: str = ""


def bars(shares: NDArray[np.float64]) -> Bars:
    """Heights of bars, cut at 0 and 1; None where a share is NaN."""
    return tuple(None if np.isnan(share) else float(min(max(share, 0.0), 1.0)) for share in shares)


@dataclass(frozen=True)
class Tiles:
    """Questions and answers in a row. `note` says what a bar is."""

    tiles: tuple[Tile, ...]
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """One sentence that a reader retells, and the section that proves it; with a patch of color or a bar each."""

    says: str
    link: str
    colors: tuple[str, ...] = ()
    bars: Bars = ()


@dataclass(frozen=True)
class Learned:
    """What the norms learned about the data, one fact after the other."""

    facts: tuple[Fact, ...]


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
    """A table whose headers explain themselves: `heads` are (name, meaning) pairs.

    A `brief` one gives way to a whole one where scripts run. `layers` says which layer each row is about.
    """

    heads: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    brief: bool = False
    layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Figure:
    """A picture, which `figures.draw` draws of its `spec`; `alt` says in words what it shows.

    `name` is unique on the page. A `still` one is for paper and for readers without scripts: elsewhere something
    that moves stands in its place. `width` is "wide" or "narrow" for one that is shown only on a screen of that kind.
    `table` says the same to those who do not see it; `rows` are the layers of the recording at each of its places.
    """

    name: str
    alt: str
    spec: Picture
    caption: str = ""
    still: bool = False
    width: str = ""
    table: Table | None = None
    rows: tuple[tuple[int, ...], ...] = ()

    def __repr__(self) -> str:
        return f"<Figure {self.name!r}: {self.spec!r}>"


@dataclass(frozen=True)
class Moving:
    """A place where the page's scripts draw: the "map" of the network, or the "layers". Nothing on paper."""

    name: str


@dataclass(frozen=True)
class Place:
    """Where a finding holds, in words, and on which numbers.

    `at` is its position: layer of the recording and channel, -1 where it is none in particular.
    """

    name: str
    because: str
    at: tuple[int, int] = (-1, -1)


@dataclass(frozen=True)
class Action:
    """What to do, and at how many places, where that is not all of them; `tried` says what came of it, if it was tried."""

    do: str
    where: str = ""
    tried: str = ""


@dataclass(frozen=True)
class Source:
    """Where a finding's reasoning is from; `link` is its address, empty where it has none."""

    words: str
    link: str = ""


@dataclass(frozen=True)
class Overlap:
    """How many channels several findings share: `heads` name what was found, a row has what holds and for how many."""

    heads: tuple[str, ...]
    rows: tuple[tuple[tuple[bool, ...], int], ...]


@dataclass(frozen=True)
class Card:
    """Findings about one thing: those of a rule, or of all rules about the same channels that pass nothing on.

    `strip` has a bar per norm, None where the card has no place; `overlap` reconciles several rules.
    """

    severity: str
    title: str
    rules: tuple[str, ...]
    places: tuple[Place, ...]
    actions: tuple[Action, ...]
    sources: tuple[Source, ...] = ()
    strip: Bars = ()
    overlap: Overlap | None = None

    @property
    def elsewhere(self) -> str:
        """How many more places there are, to follow the first; after a list of channels with a comma."""
        n = len(self.places) - 1
        return f"{',' if ',' in self.places[0].name else ''} and {count(n, 'more place')}" if n else ""


@dataclass(frozen=True)
class Findings:
    """All findings, the most severe first; `nothing` is said where there are none. The first `most` are not folded."""

    cards: tuple[Card, ...]
    nothing: str
    most: int = 5

    @property
    def folded(self) -> str:
        """How many are folded, by their severity; empty without any."""
        rest = Counter(card.severity for card in self.cards[self.most :])
        return ", ".join(f"{n:,} {severity}" for severity, n in rest.items())


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


@dataclass(frozen=True)
class Thumbnail:
    """A small image: `uri` holds it, `says` stands below it, `alt` is for those who do not see it; `state` is "good",
    "bad" or
    empty."""

    uri: str
    says: str
    alt: str
    state: str = ""


@dataclass(frozen=True)
class Pictures:
    """Small images in rows, shown `side` pixels wide; `caption` stands above them."""

    images: tuple[Thumbnail, ...]
    caption: str = ""
    side: int = 64


Block = Prose | Headline | Tiles | Learned | Facts | Table | Figure | Moving | Findings | Glossary | Pictures


@dataclass(frozen=True)
class Section:
    """A titled part of the page. `folded` sections open on request, and are open on paper.

    `layer` is the position of the layer that the section is about, -1 where it is about none; `short` is what the line of
    contents calls it, where that is not the title.
    """

    id: str
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False
    hint: str = ""
    parts: tuple[Section, ...] = ()
    layer: int = -1
    short: str = ""

    def figures(self) -> Iterator[Figure]:
        """Its pictures and those of its parts, from top to bottom."""
        yield from (block for block in self.blocks if isinstance(block, Figure))
        for part in self.parts:
            yield from part.figures()

    def __repr__(self) -> str:
        inside = ", ".join(type(block).__name__ for block in self.blocks)
        parts = f", {count(len(self.parts), 'part')}" if self.parts else ""
        return f"<Section {self.id!r}: {inside}{parts}>"


@dataclass(frozen=True)
class Page:
    """The whole page: data alone, which can be compared, pickled and written as JSON.

    `badges` stand beside the title: what kind of page it is, in a few words each.
    """

    title: str
    lead: str
    sections: tuple[Section, ...]
    footer: str
    badges: tuple[str, ...] = ()

    def figures(self) -> Iterator[Figure]:
        """Every picture, from top to bottom."""
        for section in self.sections:
            yield from section.figures()

    def __repr__(self) -> str:
        return f"<Page {self.title!r}: {', '.join(section.id for section in self.sections)}>"
