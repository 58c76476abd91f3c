"""The pictures of a page, by name: to look at, and to write as files for a paper."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bnprobe.files import write_output
from bnprobe.report.figures.specs import Picture

FORMATS = ("svg", "pdf")


class Album:
    """The figures of a page by name: iterate over the names, `album["network"]` draws one with matplotlib.

    What `Report.figures` is.
    """

    def __init__(self, named: Iterable[tuple[str, Picture]]) -> None:
        self._specs = dict(named)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __getitem__(self, name: str) -> Any:
        from bnprobe.report.figures.drawing import draw
        from bnprobe.report.figures.svg import style

        with style(name):
            return draw(self._specs[name])

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
        from bnprobe.report.figures.drawing import draw
        from bnprobe.report.figures.svg import style

        paths = []
        for name in self:
            with style(name):
                drawn = draw(self._specs[name])
                for kind in formats:
                    path = Path(folder) / f"{_file_name(name)}.{kind}"
                    whole = io.BytesIO()
                    drawn.savefig(whole, format=kind, metadata=_NO_DATE.get(kind))
                    paths.append(write_output(path, whole.getvalue()))
        return paths

    def __repr__(self) -> str:
        return f"Album({len(self)} pictures: {', '.join(self)})"


_NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""The same pictures give the same files."""


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "figure"
