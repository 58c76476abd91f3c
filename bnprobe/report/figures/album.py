"""The pictures of a page, by name: to look at, and to write as files for a paper."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnprobe.errors import CannotWrite
from bnprobe.report.page.blocks import Figure, Page, Section

FORMATS = ("svg", "pdf")


class Album:
    """The figures of a page by name: iterate over the names, `album["network"]` draws one with matplotlib.

    What `Report.figures` is.
    """

    def __init__(self, page: Page) -> None:
        found = [figure for section in page.sections for figure in _figures(section)]
        self._figures = {figure.name: figure for figure in found}

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def __getitem__(self, name: str) -> Any:
        from bnprobe.report.figures import style

        with style(name):
            return self._figures[name].draw()

    def save(self, folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write every figure once per format. Text stays text in SVG.

        Args:
            folder: The folder to write into; it is made if needed.
            formats: File formats that matplotlib can write.

        Returns:
            The paths of the files.

        Raises:
            CannotWrite: A file cannot be written.
        """
        from bnprobe.report.figures import style

        paths = []
        for name in self:
            with style(name):
                drawn = self._figures[name].draw()
                for kind in formats:
                    path = Path(folder) / f"{_file_name(name)}.{kind}"
                    try:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        drawn.savefig(path, metadata=_NO_DATE.get(kind))
                    except OSError as error:
                        raise CannotWrite(
                            f"{path}: {error.strerror}. Give a folder that can be written."
                        ) from error
                    paths.append(path)
        return paths

    def __repr__(self) -> str:
        return f"<Album of {len(self)} pictures: {', '.join(self)}>"


_NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""The same pictures give the same files."""


def _figures(section: Section) -> Iterator[Figure]:
    yield from (block for block in section.blocks if isinstance(block, Figure))
    for part in section.parts:
        yield from _figures(part)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "figure"
