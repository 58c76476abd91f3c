"""What a report on one recording and a comparison of two have in common: findings, and a page in every form."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from bnprobe.atomic_write import write_whole
from bnprobe.report.page.blocks import Page
from bnprobe.report.page.numbers import count
from bnprobe.rules.settings import Settings


class Document(ABC):
    """Everything is computed once, when first asked for."""

    settings: Settings

    @property
    @abstractmethod
    def _page(self) -> Page:
        """What it says, in blocks."""

    @property
    @abstractmethod
    def _judged(self) -> pd.DataFrame:
        """What the rules found, whatever the settings leave out."""

    @cached_property
    def findings(self) -> pd.DataFrame:
        """A row per finding, the most severe first, without those that the settings leave out.

        Columns: `severity` ("critical", "warning" or "info"), `rule`, `layer`, `channels`, `says` (what was found),
        `because` (the evidence), `do` (what to do) and `source`.
        """
        return self._judged[~self._ignored].reset_index(drop=True)

    @cached_property
    def _ignored(self) -> pd.Series:
        rows = zip(self._judged["rule"], self._judged["layer"], strict=True)
        return pd.Series([self.settings.ignores(*row) for row in rows], index=self._judged.index, dtype=bool)

    @property
    def _left_out(self) -> str:
        """Which findings the settings leave out, in words; empty where there are none."""
        rules = sorted(set(self._judged["rule"][self._ignored]))
        n = int(self._ignored.sum())
        return f"{count(n, 'finding')} left out by {self.settings.source}: {', '.join(rules)}." if n else ""

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page, whole or not at all; it works offline and as an attachment.

        Args:
            path: The file to write; its folder is made if needed.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
        """
        with _without_collection():
            from bnprobe.report.formats.html import to_html

            return write_whole(Path(path), to_html(self._page).encode())

    def to_text(self, width: int | None = None) -> str:
        """The whole page as text.

        Args:
            width: Characters per line. None is the width of the terminal.

        Returns:
            Lines that end with a newline.
        """
        from bnprobe.report.formats.text import to_text

        return to_text(self._page, width)

    def summary(self, width: int | None = None) -> str:
        """What was measured, the answer and the findings as text.

        Args:
            width: Characters per line. None is the width of the terminal.

        Returns:
            Lines that end with a newline.
        """
        from bnprobe.report.formats.text import to_text

        opening = tuple(replace(section, parts=()) for section in self._page.sections[:3])
        return to_text(replace(self._page, sections=opening), width)

    def _repr_html_(self) -> str:
        from bnprobe.report.formats.html import to_fragment

        return to_fragment(self._page)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Garbage waits until the page is there: looking for it among so many objects takes a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
