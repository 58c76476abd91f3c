"""After files were moved: correct the paths in the lists of mutants, as far as only one place fits.

An entry whose texts no longer stand in its file is looked for in all other files, and so is a test that its file
no longer defines. Where several places fit, the one that was given goes first (OLD=NEW on the command line), then
the one with the old file's name; otherwise the entry is left alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from scripts.mutants.lists import LISTS, ROOT, has_test

SEARCHED = ("bnprobe", "scripts", "tests")
ENTRY = re.compile(r"^(?=\[\[)", re.MULTILINE)


def main(given: dict[str, str], root: Path = ROOT) -> int:
    """Correct every list and print what was done; 1 when a path could not be corrected."""
    unclear = 0
    for path in sorted((root / LISTS.relative_to(ROOT)).glob("*.toml")):
        head, *entries = ENTRY.split(path.read_text(encoding="utf-8"))
        for i, text in enumerate(entries):
            for old, new in moves(tomllib.loads(text), given, root):
                print(f"{path.name}: {old} → {new or 'not clear, left as it is: correct it by hand'}")
                unclear += not new
                entries[i] = entries[i].replace(f'"{old}', f'"{new or old}')
        path.write_text("".join([head, *entries]), encoding="utf-8")
    return int(unclear > 0)


def moves(entry: dict[str, Any], given: dict[str, str], root: Path) -> Iterator[tuple[str, str]]:
    """Paths of one entry that lead nowhere any more, each with where it leads now; "" if that is not clear."""
    move = partial(_move, root, given)
    for mutant in entry.get("mutant", []):
        texts = [mutant["find"], *(find for find, _ in mutant.get("also", ()))]
        test, _, names = mutant["test"].partition("::")
        yield from move(mutant["file"], partial(_holds_once, texts))
        yield from move(test, partial(_defines, names) if names else Path.is_file)
    for mutant in entry.get("equivalent", []):
        yield from move(mutant["file"], partial(_has_line, mutant["line"]))


def _move(
    root: Path, given: dict[str, str], old: str, fits: Callable[[Path], bool]
) -> Iterator[tuple[str, str]]:
    if (root / old).is_file() and fits(root / old):
        return
    fitting = [file for file in _files(root, Path(old).suffix) if fits(root / file)]
    asked = [file for file in fitting if file == given.get(old)]
    same = [file for file in fitting if Path(file).name == Path(old).name]
    yield old, next((group[0] for group in (asked, same, fitting) if len(group) == 1), "")


@cache
def _files(root: Path, suffix: str) -> list[str]:
    """Where an entry may have gone."""
    found = [path for folder in SEARCHED for path in (root / folder).rglob(f"*{suffix}") if path.is_file()]
    return sorted(path.relative_to(root).as_posix() for path in found)


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _holds_once(texts: list[str], path: Path) -> bool:
    return all(_text(path).count(text) == 1 for text in texts)


def _has_line(line: str, path: Path) -> bool:
    return line in (text.strip() for text in _text(path).splitlines())


def _defines(names: str, path: Path) -> bool:
    last = names.partition("[")[0].rpartition("::")[2]
    # most files do not hold the word at all, and need no parsing; without a name no other file will do
    return f"def {last}" in _text(path) and has_test(path.parent, f"{path.name}::{names}")
