"""What a case is: looks at a fault and at its repair, and what must be found in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

SEVERE = ("critical", "warning")
ANY = (*SEVERE, "info")

SHIFTED = "data-shifted|input-not-as-trained"
"""Rules that find that inputs do not match the running statistics."""


@dataclass(frozen=True)
class Must:
    """A finding that must be there: patterns of its rule, of its layer, and of words in what it says, shows or advises."""

    rule: str
    layer: str = ""
    words: tuple[str, ...] = ()
    severities: tuple[str, ...] = SEVERE

    def missing(self, findings: pd.DataFrame) -> str:
        """Empty where it is there, otherwise what is not: the rule, or the words that its findings lack."""
        own = findings[findings["rule"].str.fullmatch(self.rule)]
        own = own[own["layer"].str.contains(self.layer) & own["severity"].isin(self.severities)]
        if own.empty:
            return f"no {self.rule}" + (f" at {self.layer}" if self.layer else "")
        texts = (own["says"] + " " + own["because"] + " " + own["do"]).tolist()
        lacking = [
            [word for word in self.words if not re.search(word, text, re.IGNORECASE)] for text in texts
        ]
        fewest = min(lacking, key=len)
        return f"{own['rule'].iloc[0]} does not say {', '.join(fewest)}" if fewest else ""


PADDED = Must(".*", "norm", ("padding|exactly (0|zero)|zeros",), ANY)
"""Zeros among the positions of sequences."""


@dataclass(frozen=True)
class Look:
    """One table of findings: at a fault, with what must be found, or at what is right (`musts` is empty)."""

    title: str
    findings: pd.DataFrame
    musts: tuple[Must, ...] = ()
    at_fault: bool = True

    @property
    def missing(self) -> list[str]:
        """What had to be found and was not."""
        return [text for must in self.musts if (text := must.missing(self.findings))]

    @property
    def others(self) -> list[str]:
        """Rules that speak at warning or above and were not asked for."""
        severe = self.findings[self.findings["severity"].isin(SEVERE)]
        asked = [must.rule for must in self.musts]
        return sorted({rule for rule in severe["rule"] if not any(re.fullmatch(a, rule) for a in asked)})


def fault(title: str, told: Any, *musts: Must) -> Look:
    """A look at what went wrong; `told` has `findings`: a report, a comparison, or the result of a check."""
    return Look(title, told.findings, musts)


def right(title: str, told: Any) -> Look:
    """A look at what is right: nothing may be said at warning or above."""
    return Look(title, told.findings, at_fault=False)


@dataclass(frozen=True)
class Case:
    """One problem: its name, the kind of mistake, where it comes from, and how to look at it."""

    name: str
    kind: str
    looks: Callable[[], Iterator[Look]]
    source: str = ""
    needs: str = ""
    """A package that the case needs; without it the case is left out."""
    known_miss: str = ""
    """Why it is missed today, where it is: the table counts it as missed all the same."""
    slow: bool = False
    """Whether only the benchmark runs it, and no test."""


class Cases(list[Case]):
    """The cases of one kind, which functions join as they are defined."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def add(
        self, name: str, source: str = "", needs: str = "", known_miss: str = "", slow: bool = False
    ) -> Callable[[Callable[[], Iterator[Look]]], Callable[[], Iterator[Look]]]:
        """Decorator: a generator of looks becomes a case."""

        def joined(looks: Callable[[], Iterator[Look]]) -> Callable[[], Iterator[Look]]:
            self.append(Case(name, self.kind, looks, source, needs, known_miss, slow))
            return looks

        return joined
