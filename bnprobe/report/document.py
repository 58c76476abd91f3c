"""What a report on one recording and a comparison of two have in common: findings, and a page in every form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bnprobe.files import write_output
from bnprobe.garbage import collector_paused
from bnprobe.measures import Column
from bnprobe.report.browser import Data
from bnprobe.report.chapters.glossary import explain
from bnprobe.report.figures.album import Album
from bnprobe.report.figures.specs import Picture
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Page
from bnprobe.rules.rule_docs import rule_address
from bnprobe.rules.settings import Settings


class Document(ABC):
    """Everything is computed once, when first asked for."""

    settings: Settings

    SCHEMA: str
    """What its JSON calls itself."""

    @property
    @abstractmethod
    def _page(self) -> Page:
        """What it says, in blocks."""

    @property
    def _opening(self) -> Page:
        """The first three sections of it."""
        return replace(self._page, sections=self._page.sections[:3])

    @property
    @abstractmethod
    def _judged(self) -> pd.DataFrame:
        """What the rules found, whatever the settings leave out."""

    @property
    @abstractmethod
    def _columns(self) -> Sequence[Column]:
        """What the columns of its tables mean."""

    @property
    @abstractmethod
    def _named_tables(self) -> Mapping[str, pd.DataFrame]:
        """Its tables, by the names under which they are attributes."""

    @property
    @abstractmethod
    def _contents(self) -> Mapping[str, Any]:
        """What its JSON holds beside the findings."""

    def _data(self) -> Data | None:
        """What the page's scripts draw from; None where nothing moves."""
        return None

    @cached_property
    def findings(self) -> pd.DataFrame:
        """A row per finding, the most severe first, without those that the settings leave out.

        Columns: `severity` ("critical", "warning" or "info"), `rule`, `layer`, `channels`, `says` (what was found),
        `because` (the evidence), `do` (what to do) and `source`.
        """
        return self._annotated(self._judged[~self._ignored].drop(columns="remedy").reset_index(drop=True))

    def _annotated(self, findings: pd.DataFrame) -> pd.DataFrame:
        """The findings with what is known beside them."""
        return findings

    @cached_property
    def _ignored(self) -> pd.Series:
        rows = zip(self._judged["rule"], self._judged["layer"], strict=True)
        return pd.Series([self.settings.ignores(*row) for row in rows], index=self._judged.index, dtype=bool)

    @property
    def _left_out(self) -> str:
        """Which findings the settings leave out, in words; empty where there are none."""
        rules = sorted(set(self._judged["rule"][self._ignored]))
        n = int(self._ignored.sum())
        return f"{count(n, 'finding')} ignored by {self.settings.source}: {', '.join(rules)}." if n else ""

    @property
    def _counted(self) -> str:
        """How many findings of each severity there are: 1 critical, 4 warnings, 2 infos."""
        n = self.findings["severity"].value_counts()
        critical, warnings, infos = (int(n.get(severity, 0)) for severity in ("critical", "warning", "info"))
        return f"{critical} critical, {count(warnings, 'warning')}, {count(infos, 'info')}"

    @cached_property
    def figures(self) -> Album:
        """The page's pictures by name; `figures.save(folder)` writes them as SVG and PDF."""
        shown = [(figure.name, figure.spec) for figure in self._page.figures()]
        return Album((*shown, *self._drawn_by_scripts))

    @property
    def _drawn_by_scripts(self) -> Sequence[tuple[str, Picture]]:
        """Pictures that the page's scripts draw, and a paper has no scripts for."""
        return ()

    def explain(self, name: str) -> str:
        """What a column of the tables means: its meaning, formula, unit and source, as far as there are any.

        Args:
            name: A column of `layers` or `channels`, as "kl_median".

        Returns:
            The glossary's entry as text.

        Raises:
            NotDefined: There is no such column; the message names the nearest ones.
        """
        return explain(self._columns, name)

    def to_html(self, path: str | Path) -> Path:
        """Write one self-contained HTML page, whole or not at all; it works offline and as an attachment.

        Args:
            path: The file to write; its folder is made if needed.

        Returns:
            The path.

        Raises:
            CannotWrite: The file cannot be written.
        """
        with collector_paused():
            return write_output(Path(path), self._html().encode())

    def _html(self) -> str:
        from bnprobe.report.formats.html import to_html

        return to_html(self._page, self._data())

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
        """The answer, what was learned, the findings and what was measured, as text.

        Args:
            width: Characters per line. None is the width of the terminal.

        Returns:
            Lines that end with a newline.
        """
        from bnprobe.report.formats.text import to_text

        opening = self._opening
        sections = tuple(replace(section, parts=()) for section in opening.sections)
        return to_text(replace(opening, sections=sections), width)

    def to_json(self) -> str:
        """Everything but the channels as strict JSON: facts, the answer, tables and findings.

        `schema` says what it is and `schema_version` in which form; `bnprobe/report/schemas` has the JSON schema of each.
        Tables are lists of rows.

        Returns:
            JSON text; NaN and infinities are null.
        """
        from bnprobe.report.formats.json import rows, to_json

        findings = [{**row, "help": rule_address(str(row["rule"]))} for row in rows(self.findings)]
        return to_json(self.SCHEMA, {**self._contents, "findings": findings})

    def save_tables(self, folder: str | Path, format: str = "csv") -> list[Path]:
        """Write every table to a file of its own.

        Args:
            folder: Where to write; it is made if needed.
            format: "csv" or "parquet". Parquet needs pyarrow, and says of each column what it means, its formula and unit
                (the field's metadata).

        Returns:
            The paths of the files.

        Raises:
            BnprobeError: Another format, or pyarrow is not installed.
            CannotWrite: The folder cannot be written to.
        """
        from bnprobe.report.formats.tables import to_files

        files = to_files(self._named_tables, format, self._columns)
        return [write_output(Path(folder) / name, contents) for name, contents in files.items()]

    def _repr_html_(self) -> str:
        from bnprobe.report.formats.html import to_fragment

        return to_fragment(self._page)
