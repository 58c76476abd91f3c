"""What `bnprobe.compare` returns: tables of differences, findings, a page, a text and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from bnprobe.comparison import (
    Differences,
    DifferenceSite,
    Pairs,
    differences,
    first_difference,
    glossary,
    pairs,
)
from bnprobe.comparison.page.page import compose
from bnprobe.comparison.page.sentences import answer
from bnprobe.comparison.page.to_json import contents
from bnprobe.errors import CannotCompare, NothingRecorded
from bnprobe.measures import Column
from bnprobe.recording import Recording
from bnprobe.report.document import Document
from bnprobe.report.nothing_seen import nothing_seen
from bnprobe.report.numbers import count, listed
from bnprobe.report.page.blocks import Page
from bnprobe.rules import COMPARED, judge
from bnprobe.rules.settings import Settings


class Comparison(Document):
    """Differences from A to B. Everything is computed once, when first asked for.

    Where a difference has a direction it is B − A, or B / A: A is the reference.
    """

    SCHEMA = "comparison"

    def __init__(self, a: Recording, b: Recording, settings: Settings | None = None) -> None:
        for side, recording in (("A", a), ("B", b)):
            if not recording.layers:
                raise NothingRecorded(f"{side}: {nothing_seen(recording)}")
        self.a, self.b = a, b
        self.settings = settings or Settings()
        if not self._pairs.common:
            raise CannotCompare(
                f"{a.about.model} and {b.about.model} have no norm in common: paths are {_names(a)} in A and {_names(b)} "
                "in B. Rename the modules of one, or compare the same network in two states."
            )

    @cached_property
    def _pairs(self) -> Pairs:
        return pairs(self.a, self.b)

    @cached_property
    def _tables(self) -> Differences:
        return differences(self._pairs)

    @cached_property
    def _page(self) -> Page:
        return compose(self.a, self.b, self._pairs, self._tables, self.findings, self.answer, self._left_out)

    @property
    def layers(self) -> pd.DataFrame:
        """A row per common site, in the order in which A reached them; `change` sorts them by what changed."""
        return self._tables.layers

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of every common site, with both sides and their differences."""
        return self._tables.channels

    @property
    def unmatched(self) -> pd.DataFrame:
        """A row per site that only one side has, or that has another number of channels: `side` and `why`."""
        return self._tables.unread

    @property
    def identical(self) -> bool:
        """Whether both sides have the same norms with the same numbers, to the last bit."""
        return bool(self.layers["identical"].all()) and self.unmatched.empty

    @cached_property
    def opens(self) -> DifferenceSite | None:
        """The first place, in the order in which the data pass, where the sides differ by `limits.gap`, or None."""
        return first_difference(self.layers, self.settings.limits.gap)

    @cached_property
    def answer(self) -> tuple[str, ...]:
        """What changed, in a few sentences: the first one says where the two begin to differ."""
        return tuple(answer(self.a, self.b, self._tables, self.findings, self.settings.limits))

    @cached_property
    def _judged(self) -> pd.DataFrame:
        return judge(self._tables, self.settings.limits, COMPARED)

    @property
    def _columns(self) -> Sequence[Column]:
        return glossary()

    @property
    def _named_tables(self) -> Mapping[str, pd.DataFrame]:
        return {
            "layers": self.layers,
            "channels": self.channels,
            "unmatched": self.unmatched,
            "findings": self.findings,
        }

    @property
    def _contents(self) -> Mapping[str, Any]:
        return contents(self.a, self.b, self._tables, self.identical, self.answer, self.opens)

    def __repr__(self) -> str:
        where = (
            "identical"
            if self.identical
            else f"first difference at {self.opens.words}"
            if self.opens
            else "no large difference"
        )
        return (
            f"<Comparison of {self.a.about.model} with {self.b.about.model}: {count(len(self.layers), 'common norm')}, "
            f"{where}, {count(len(self.findings), 'finding')}>"
        )


def _names(recording: Recording) -> str:
    return listed([record.site for record in recording.layers], 2)
