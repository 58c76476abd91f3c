"""The frame that every claim's section has: the claim in two languages, the verdict, then the evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bnprobe.report.numbers import number
from bnprobe.report.page.blocks import Block, Cell, Facts, Section, Table
from scripts.article.verdicts import Verdict


def section(
    place: int, title: str, claim: str, chinese: str, verdict: Verdict, blocks: Sequence[Block]
) -> Section:
    """One claim's part of the page."""
    head = Facts(
        (
            ("The claim", claim),
            ("The same in Chinese", chinese),
            ("Verdict", f"{verdict.word[0].upper()}{verdict.word[1:]}."),
            ("Because", " ".join(verdict.because)),
        )
    )
    return Section(f"claim-{place}", f"{place}. {title}", (head, *blocks))


def table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str | float]], note: str = "") -> Table:
    """Heads are (name, meaning) pairs; numbers are written with three digits."""
    return Table(
        tuple(heads),
        tuple(
            tuple(Cell(x, number=False) if isinstance(x, str) else Cell(number(float(x))) for x in row)
            for row in rows
        ),
        note,
    )
