"""Mutants that no test can catch: tests/mutants/equivalent.toml, each with the proof that nothing changes.

[[equivalent]]
file     = "bnprobe/stats/histogram.py"
function = "quantile"                              # only where the line stands in the file more than once
line     = "if total <= 0:"                        # the line as it is, without the blanks around it
becomes  = "if total < 0:"                         # the line as the mutant has it
why      = "counts are sums of ones, and the case of 0 returned two lines above"
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.mutants.lists import LISTS, MOVED, ROOT, BadList
from scripts.mutants.operators import changes
from scripts.mutants.source import Change, Source

EQUIVALENT = LISTS / "equivalent.toml"


@dataclass(frozen=True)
class Equivalent:
    """A line, what a mutant makes of it, and why both do the same."""

    file: str
    line: str
    becomes: str
    why: str
    function: str = ""

    def is_that_of(self, file: str, change: Change, source: Source) -> bool:
        """Whether the change of the file is the one described."""
        return (
            file == self.file
            and source.line_text(change.line) == self.line
            and Source(change.apply(source.text)).line_text(change.line) == self.becomes
            and self.function in ("", function_at(source, change.line))
        )


def function_at(source: Source, line: int) -> str:
    """The name of the innermost function around a line; "" outside of functions."""
    functions = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(functions, key=lambda node: node.lineno).name if functions else ""


def read(path: Path = EQUIVALENT) -> list[Equivalent]:
    """The entries of the list."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
        return [Equivalent(**entry) for entry in entries]
    except TypeError as error:
        raise BadList(
            f"{path.name}: {error}. An entry has file, line, becomes, why and perhaps function."
        ) from error


def check(entries: list[Equivalent], root: Path = ROOT) -> None:
    """Refuse entries without a reason, and those that describe no mutant of the code or several."""
    found = [line for entry in entries for line in _misfits(entry, root)]
    if found:
        raise BadList("\n".join(found))


def _misfits(entry: Equivalent, root: Path) -> Iterator[str]:
    path, where = root / entry.file, f"{EQUIVALENT.name}: {entry.file}: {entry.line!r}"
    if not path.is_file():
        yield f"{where}: there is no such file. {MOVED}"
        return
    if len(entry.why.split()) < 4:
        yield f"{where} has no reason. Say in `why` why nothing changes."
    source = Source(path.read_text(encoding="utf-8"))
    n = sum(entry.is_that_of(entry.file, change, source) for change in changes(source))
    if n != 1:
        yield f"{where}: {n} mutants make {entry.becomes!r} of it, not one. {MOVED}"
