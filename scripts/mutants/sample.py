"""Random mutants: a sample of all small changes of some packages, the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from scripts.mutants.lists import ROOT
from scripts.mutants.operators import changes, is_mutant
from scripts.mutants.packages import Package
from scripts.mutants.source import Change, Source


@dataclass(frozen=True)
class RandomMutant:
    """One change of a file of a package."""

    package: Package
    file: str
    change: Change

    @property
    def place(self) -> str:
        """Where it is, as "bnprobe/stats/moments.py:120"."""
        return f"{self.file}:{self.change.line}"

    @property
    def source(self) -> Source:
        """The file as it is without the mutant."""
        return source_of(self.file)

    @property
    def in_function(self) -> bool:
        """Whether the statement runs only when a function is called."""
        return self.source.statement_at(self.change.line)[1]

    @property
    def line(self) -> str:
        """The line as it is."""
        return self.source.line_text(self.change.line)

    @property
    def becomes(self) -> str:
        """The line as the mutant has it."""
        return Source(self.mutate(self.source.text)).line_text(self.change.line)

    def mutate(self, text: str) -> str:
        """The file's text with the change in it."""
        return self.change.apply(text)


@cache
def source_of(file: str) -> Source:
    """A file of the tree, read once."""
    return Source((ROOT / file).read_text(encoding="utf-8"))


def sample(packages: list[Package], seed: int, number: int) -> list[RandomMutant]:
    """So many mutants of these packages; all changes are equally likely."""
    population = [mutant for package in packages for mutant in mutants_of(package)]
    random.Random(seed).shuffle(population)
    found: list[RandomMutant] = []
    for mutant in population:
        if len(found) == number:
            break
        if is_mutant(mutant.change, mutant.source):
            found.append(mutant)
    return found


def one_a_line(packages: list[Package], seed: int) -> list[RandomMutant]:
    """One mutant of every line that has any, in a random order: what no test looks at at all shows."""
    population = [mutant for package in packages for mutant in mutants_of(package)]
    random.Random(seed).shuffle(population)
    found: dict[str, RandomMutant] = {}
    for mutant in population:
        if mutant.place not in found and is_mutant(mutant.change, mutant.source):
            found[mutant.place] = mutant
    return list(found.values())


def mutants_of(package: Package) -> list[RandomMutant]:
    """Every mutant of a package."""
    return [
        RandomMutant(package, file, change)
        for file in package.sources()
        for change in changes(source_of(file))
    ]


def at(packages: list[Package], place: str) -> list[RandomMutant]:
    """Every mutant of one line, given as "bnprobe/stats/moments.py:120", or of a whole file."""
    file, _, line = place.partition(":")
    mutants = [mutant for package in packages for mutant in mutants_of(package) if mutant.file == file]
    return [
        mutant
        for mutant in mutants
        if line in ("", str(mutant.change.line)) and is_mutant(mutant.change, mutant.source)
    ]
