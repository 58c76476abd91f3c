"""Planted mutants: put each into a copy of the package and demand that the named test fails.

Most are caught in a fork of a warm process (`warm`); who is not, or is no statement in a function, is put into a copy
on the disk. Exits with 1 when a mutant survives, with 2 when a list itself is wrong (text not found, or a test that
fails without a mutant). A mutant whose test needs what is not installed here is not tried, which is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from scripts.mutants import warm
from scripts.mutants.lists import BadList, PlantedMutant, check, read
from scripts.mutants.warm import Job
from scripts.mutants.workers import (
    FAILED,
    NO_TESTS,
    PASSED,
    TIMED_OUT,
    copies,
    demand_green,
    mutated,
    prepare,
    run_tests,
    spread,
)

CAUGHT, NOT_TRIED = "caught", "NOT TRIED"
LIMIT = 300.0
"""Seconds by the clock after which a test hangs, and the mutant is caught."""


def main(pattern: str, lists: list[Path], workers: int) -> int:
    """Read the lists, check them against the code, try every mutant, print what became of it."""
    prepare()
    mutants = [mutant for mutant in read(lists) if mutant.is_chosen_by(pattern)]
    if not mutants:
        raise BadList(f"no mutant matches {pattern!r}. Give the name of a mutant or of a file, as 'm4*'.")
    check(mutants)
    with copies(workers) as desks:
        outcomes = try_all(mutants, desks)
    print_table(mutants, outcomes)
    return int(any(outcome not in (CAUGHT, NOT_TRIED) for outcome in outcomes.values()))


def try_all(mutants: list[PlantedMutant], desks: list[Path]) -> dict[str, str]:
    """What became of each mutant, by name."""
    known: set[str] = set()
    found = chain(_warm(mutants, desks, known), _cold(mutants, desks, known))
    return dict(tqdm(found, total=len(mutants), desc="mutants", disable=None, unit="mutant"))


def _warm(mutants: list[PlantedMutant], desks: list[Path], known: set[str]) -> Iterator[tuple[str, str]]:
    """Those whose test fails or hangs in a fork of one process, and those whose test cannot run here."""
    jobs = []
    for i, mutant in enumerate(mutants):
        if mutant.file.endswith(".py"):
            text = (desks[0] / mutant.file).read_text(encoding="utf-8")
            jobs.append(Job(i, mutant.file, mutant.mutate(text), (mutant.test,), LIMIT))
    found, untrusted = [], frozenset[str]()
    try:
        for result in warm.try_all(desks[0], jobs, len(desks)) if jobs else ():
            found.append(result)
            if len(found) % 100 == 0:
                print(f"{len(found):,} of {len(jobs):,} tried in a warm process", flush=True)
    except warm.Untrusted as error:
        untrusted = error.tests  # in a process that has collected all tests; they may pass by themselves
    for result in found:
        became = {FAILED: CAUGHT, TIMED_OUT: CAUGHT, NO_TESTS: NOT_TRIED}.get(result.code)
        if became is not None and result.failed not in untrusted:
            known.add(mutants[result.number].name)
            yield mutants[result.number].name, became


def _cold(mutants: list[PlantedMutant], desks: list[Path], known: set[str]) -> Iterator[tuple[str, str]]:
    """The others, each in a copy that is changed on the disk."""
    left = [mutant for mutant in mutants if mutant.name not in known]
    if left:
        demand_green(desks[0], sorted({mutant.test for mutant in left}))
        yield from ((mutant.name, result) for mutant, result in spread(left, desks, outcome))


def outcome(mutant: PlantedMutant, desk: Path) -> str:
    """`caught` when the test fails or hangs, `SURVIVED` when it passes, `ERROR` when it could not run."""
    with mutated(desk, mutant.file, mutant.mutate):
        run = run_tests(desk, [mutant.test], LIMIT)
    return {PASSED: "SURVIVED", FAILED: CAUGHT, TIMED_OUT: CAUGHT}.get(run.code, "ERROR")


def print_table(mutants: list[PlantedMutant], outcomes: dict[str, str]) -> None:
    """A line per mutant, the survivors last, where they are seen."""
    width = max(len(mutant.name) for mutant in mutants)
    for mutant in sorted(mutants, key=lambda mutant: outcomes[mutant.name] != CAUGHT):
        print(f"{outcomes[mutant.name]:9} {mutant.name:{width}}  {mutant.breaks}")
        if outcomes[mutant.name] != CAUGHT:
            print(f"{'':9} {'':{width}}  {mutant.file}, expected to fail: {mutant.test}")
    found = list(outcomes.values())
    n_tried = len(found) - found.count(NOT_TRIED)
    print(f"{found.count(CAUGHT)} of {n_tried} mutants caught", end="")
    print(
        f"; {found.count(NOT_TRIED)} not tried, as their tests need what is not installed"
        * (NOT_TRIED in found)
    )
