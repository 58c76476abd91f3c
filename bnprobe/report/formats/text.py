"""The same blocks as text for the terminal."""

from __future__ import annotations

import shutil
import textwrap

from bnprobe.report.numbers import count, visible
from bnprobe.report.page.blocks import (
    Block,
    Facts,
    Figure,
    Findings,
    Glossary,
    Headline,
    Learned,
    Moving,
    Overlap,
    Page,
    Pictures,
    Prose,
    Section,
    Table,
    Tiles,
)


def to_text(page: Page, width: int | None = None) -> str:
    """The page without its pictures, `width` characters wide (the terminal's width where None).

    The glossary and single layers are left out.
    """
    columns = width or min(shutil.get_terminal_size((100, 24)).columns, 120)
    title = _wrap(page.title, columns)
    last: list[str] = []
    parts = [*title, "=" * len(title[0]), *_wrap(page.lead, columns)]
    for section in page.sections:
        if not section.folded and section.blocks and all(part.layer < 0 for part in section.parts):
            parts += _section(section, columns)
            last += [line for part in section.parts for line in _section(part, columns)]
    return "\n".join(parts + last) + "\n"


def _section(section: Section, width: int) -> list[str]:
    title = visible(section.title)
    lines = ["", title, "-" * len(title)]
    for block in section.blocks:
        lines += _block(block, width)
    return lines


def _block(block: Block, width: int) -> list[str]:
    if isinstance(block, Prose):
        return [line for paragraph in block.paragraphs for line in _wrap(paragraph, width)]
    if isinstance(block, Headline):
        return _wrap(block.text, width)
    if isinstance(block, Tiles):
        return ["", *_facts(Facts(tuple((tile.question, tile.says) for tile in block.tiles)), width), ""]
    if isinstance(block, Learned):
        return [line for fact in block.facts for line in _wrap(fact.says, width)]
    if isinstance(block, Facts):
        return _facts(block, width)
    if isinstance(block, Findings):
        return _findings(block, width)
    if isinstance(block, Table):
        return _table(block, width)
    if isinstance(block, Glossary):
        return [line for entry in block.entries for line in _wrap(f"{entry.name}: {entry.meaning}", width)]
    if isinstance(block, Pictures):
        return _wrap(block.caption, width) if block.caption else []
    assert isinstance(block, Figure | Moving)
    return []


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(visible(text), width, initial_indent=indent, subsequent_indent=indent) or [""]


def _facts(block: Facts, width: int) -> list[str]:
    left = max(len(name) for name, _ in block.rows) + 2
    lines = []
    for name, value in block.rows:
        first, *rest = _wrap(value, max(width - left, 20))
        lines += [f"{name:<{left}}{first}", *(" " * left + line for line in rest)]
    return lines


def _findings(block: Findings, width: int) -> list[str]:
    if not block.cards:
        return [block.nothing]
    lines = []
    for card in block.cards:
        lines += _wrap(f"{card.severity.upper()} {card.title}", width)
        if card.overlap:
            lines += [line for text in _overlap(card.overlap) for line in _wrap(text, width, "    ")]
        lines += _wrap(f"{card.places[0].name}{card.elsewhere}: {card.places[0].because}", width, "    ")
        for action in card.actions:
            where = f" ({action.where})" if action.where else ""
            lines += _wrap(f"What to do{where}: {action.do}", width, "    ")
            lines += _wrap(action.tried, width, "    ") if action.tried else []
        lines += [*_wrap(f"rule{'s' * (len(card.rules) > 1)} {', '.join(card.rules)}", width, "    "), ""]
    return lines[:-1]


def _overlap(overlap: Overlap) -> list[str]:
    """A line for every combination of findings: how many channels have it."""
    return [
        f"{count(n, 'channel')}: {', '.join(head for head, holds in zip(overlap.heads, held, strict=True) if holds)}"
        for held, n in overlap.rows
    ]


def _table(block: Table, width: int) -> list[str]:
    """As many columns as fit, the first ones first; what is left out is said."""
    texts = [[name for name, _ in block.heads], *([visible(cell.text) for cell in row] for row in block.rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(block.heads))]
    fitting = next((k for k in range(len(widths), 0, -1) if sum(widths[:k]) + 2 * (k - 1) <= width), 1)
    left = [i == 0 or not all(row[i].number for row in block.rows) for i in range(fitting)]
    lines = [
        "  ".join(
            f"{row[i]:<{widths[i]}}" if left[i] else f"{row[i]:>{widths[i]}}" for i in range(fitting)
        ).rstrip()
        for row in texts
    ]
    if fitting < len(widths):
        lines += _wrap(f"(columns not shown here: {', '.join(n for n, _ in block.heads[fitting:])})", width)
    return lines
