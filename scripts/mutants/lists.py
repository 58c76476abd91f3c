"""Planted mutants: what is written down in tests/mutants/*.toml, read and checked against the code.

    [[mutant]]
    name    = "a word to select it by"
    file    = "bnprobe/stats/moments.py"
    find    = "text that stands exactly once in the file"
    replace = "what stands there instead"
    breaks  = "what a user would see"
    test    = "tests/stats/test_moments.py::test_merge_weighs_by_count"
    also    = [["more text in the same file", "what stands there instead"]]     # optional

A find text is whole lines or part of one; `test` must fail once the mutant is in the code.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests" / "mutants"
MOVED = "Run `python -m scripts.mutants relocate` if it was moved; otherwise correct the list."
"""The next step of everyone whose list no longer fits."""


class BadList(Exception):
    """An entry of a list does not fit the code or the tests."""


@dataclass(frozen=True)
class PlantedMutant:
    """One change that somebody thought of, and the test that must notice it."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    breaks: str
    test: str

    def mutate(self, source: str) -> str:
        """The source with the change in it; every text must stand there exactly once."""
        for find, replace in self.edits:
            if source.count(find) != 1:
                raise BadList(
                    f"{self.name}: {find!r} stands {source.count(find)} times in {self.file}, not once. {MOVED}"
                )
            source = source.replace(find, replace)
        return source

    def is_chosen_by(self, pattern: str) -> bool:
        """Whether the pattern names the mutant, its file or the last part of its file's path."""
        names = (self.name, self.file, Path(self.file).name)
        return any(fnmatchcase(name, pattern) for name in names)


def planted_lists() -> list[Path]:
    """Every list; those in the folder that hold something else have no entry `mutant`."""
    return sorted(LISTS.glob("*.toml"))


def read(paths: Iterable[Path]) -> list[PlantedMutant]:
    """The mutants of these lists, in their order."""
    return [mutant for path in paths for mutant in _read_one(path)]


def _read_one(path: Path) -> Iterator[PlantedMutant]:
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []):
        try:
            edits = ((entry["find"], entry["replace"]), *(tuple(pair) for pair in entry.get("also", ())))
            name = entry.get("name") or entry["breaks"]
            yield PlantedMutant(name, entry["file"], edits, entry["breaks"], entry["test"])
        except KeyError as missing:
            raise BadList(f"{path.name}: an entry has no {missing}: {entry}. Add it.") from missing


def check(mutants: list[PlantedMutant], root: Path = ROOT) -> None:
    """Refuse lists that do not fit the code, before anything is run; every misfit is named."""
    found = [*_same_names(mutants), *(line for mutant in mutants for line in _misfits(mutant, root))]
    if found:
        raise BadList("\n".join(found))


def _same_names(mutants: list[PlantedMutant]) -> Iterator[str]:
    names = [mutant.name for mutant in mutants]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{names.count(name)} mutants are called {name!r}. Rename all but one."


def _misfits(mutant: PlantedMutant, root: Path) -> Iterator[str]:
    path = root / mutant.file
    if not path.is_file():
        yield f"{mutant.name}: there is no {mutant.file}. {MOVED}"
        return
    try:
        mutated = mutant.mutate(path.read_text(encoding="utf-8"))
        if path.suffix == ".py":
            compile(mutated, mutant.file, "exec")
    except BadList as error:
        yield str(error)
    except SyntaxError as error:
        yield f"{mutant.name}: {mutant.file} is no program any more ({error}). Correct `replace`."
    if not has_test(root, mutant.test):
        yield f"{mutant.name}: there is no {mutant.test}. {MOVED}"


def has_test(root: Path, test: str) -> bool:
    """Whether the test's file is there and defines it: "tests/a.py::TestB::test_c[1]", or a whole file."""
    file, *names = test.partition("[")[0].split("::")
    path = root / file
    return path.exists() and (not names or _defines(ast.parse(path.read_text(encoding="utf-8")), names))


def _defines(node: ast.AST, names: list[str]) -> bool:
    inner = [
        child
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name == names[0]
    ]
    return any(len(names) == 1 or _defines(child, names[1:]) for child in inner)
