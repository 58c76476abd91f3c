"""What `bnprobe.report` returns: tables for the machine, a page and a text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pandas as pd

from bnprobe.errors import NothingRecorded
from bnprobe.measures import Column, StemReading, Tables, glossary, imbalance, stem, tables
from bnprobe.recording import Recording
from bnprobe.report.browser import Data, data_of
from bnprobe.report.chapters.answer import answer
from bnprobe.report.compose import compose
from bnprobe.report.document import Document
from bnprobe.report.nothing_seen import nothing_seen
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Page
from bnprobe.rules import judge
from bnprobe.rules.settings import Settings


class Report(Document):
    """Tables, findings and pages of one recording. Everything is computed once, when first asked for."""

    SCHEMA = "report"

    def __init__(self, recording: Recording, settings: Settings | None = None) -> None:
        if not recording.weights_only and recording.saw_nothing:
            raise NothingRecorded(nothing_seen(recording))
        self.recording = recording
        self.settings = settings or Settings()

    @cached_property
    def _tables(self) -> Tables:
        return tables(self.recording)

    @cached_property
    def _page(self) -> Page:
        return compose(self.recording, self._tables, self.findings, self._sentences, self._left_out)

    def _data(self, compact: bool) -> Data:
        return data_of(self.recording, self._tables, self.findings, compact)

    @cached_property
    def _sentences(self) -> tuple[str, ...]:
        return tuple(answer(self.recording, self._tables, self.findings))

    @property
    def answer(self) -> str:
        """What the norms learned and whether something is wrong, in a few sentences."""
        return " ".join(self._sentences)

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site, that is per call of a norm layer, in the order in which they were reached."""
        return self._tables.layers

    @property
    def channels(self) -> pd.DataFrame:
        """A row per channel of every site."""
        return self._tables.channels

    @cached_property
    def _judged(self) -> pd.DataFrame:
        return judge(self._tables, self.settings.limits)

    @property
    def gradient_imbalance(self) -> float:
        """One number for the whole network: 0 when the gradient is equally long at every norm.

        The standard deviation (divisor n) through depth of log10 of the gradient's length at the norms' outputs;
        NaN where no backward pass was recorded.
        """
        return imbalance(self.layers)

    @cached_property
    def stem(self) -> StemReading:
        """What the first norm knows of the training images: `mean_rgb`, `padding_share`, and whether it is `trusted`.

        `why` says in a sentence what the trust rests on, or why nothing is known of this network.
        """
        return stem(self.recording)

    def plot(self, y: str, x: str | None = None, *, layer: str | None = None, ax: Any = None) -> Any:
        """One measure as matplotlib axes, drawn by seaborn: `report.plot("gamma")`.

        A column of `report.channels` is drawn as a box per layer by depth, one of `report.layers` as a line. With
        `layer`, the channels of that layer as a histogram. With `x`, channels as points of one measure against
        another, coloured by how often they fire. Draws into `ax` where one is given. Raises NotDefined where there
        is no such column or layer, or nothing to draw.
        """
        from bnprobe.report.figures.paper import known, plot

        known(self._tables, y, needs_channels=x is not None or layer is not None)
        if x is not None:
            known(self._tables, x, needs_channels=True)
        return plot(self._tables, y, x, layer, ax)

    @property
    def _columns(self) -> Sequence[Column]:
        return glossary()

    @property
    def _named_tables(self) -> Mapping[str, pd.DataFrame]:
        return {"layers": self.layers, "channels": self.channels, "findings": self.findings}

    @property
    def _contents(self) -> Mapping[str, Any]:
        return {
            "about": self.recording.about,
            "integrity": self.recording.integrity,
            "never_called": self.recording.never_called,
            "not_understood": self.recording.not_understood,
            "answer": self._sentences,
            "gradient_imbalance": self.gradient_imbalance,
            "stem": self.stem,
            "layers": self.layers,
        }

    def __repr__(self) -> str:
        return (
            f"<Report on {self.recording.about.model}: {count(len(self.layers), 'norm layer')}, "
            f"{count(len(self.channels), 'channel')}, {self._counted}>"
        )
