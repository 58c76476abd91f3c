"""Packages that random mutants are made of: tests/mutants/packages.toml, names and paths as data.

[measures]
files = ["bnprobe/measures/*.py"]                  # what is changed
tests = ["tests/measures"]                         # the package's own tests, which come first
suite = ["tests/findings", "tests/report"]         # the rest that a survivor must face
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.mutants.lists import LISTS, ROOT, BadList

PACKAGES = LISTS / "packages.toml"


@dataclass(frozen=True)
class Package:
    """Where a package's files and tests are."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    suite: tuple[str, ...]

    def sources(self, root: Path = ROOT) -> list[str]:
        """The package's files, relative to the root."""
        found = {path for pattern in self.files for path in root.glob(pattern)}
        return sorted(path.relative_to(root).as_posix() for path in found)

    def holds(self, file: str) -> bool:
        """Whether the file is one of the package's."""
        return file in self.sources()


def packages(path: Path = PACKAGES) -> list[Package]:
    """Every package of the file, checked: each path must lead somewhere."""
    entries = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [
        Package(name, tuple(entry["files"]), tuple(entry["tests"]), tuple(entry.get("suite", ())))
        for name, entry in entries.items()
    ]
    for package in found:
        _check(package)
    return found


def chosen(names: Iterable[str]) -> list[Package]:
    """The packages of these names, or all of them."""
    known = {package.name: package for package in packages()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadList(f"no package {unknown[0]!r} in {PACKAGES.name}. Known: {', '.join(known)}.")
    return [known[name] for name in names] or list(known.values())


def _check(package: Package) -> None:
    for pattern in (*package.files, *package.tests, *package.suite):
        if not any(ROOT.glob(pattern)):
            raise BadList(f"{PACKAGES.name}: {package.name}: nothing is at {pattern}. Correct the path.")
