"""Planted mutants: put each into a copy of the package and demand that the named test fails.

Most are caught in a fork of a warm process (`warm`); who is not, or is no statement in a function, is put into a copy
on the disk. Each is printed as it becomes known, and those that were not caught once more at the end. Exits with 1
when a mutant survives or its test fails without it, too, and with 2 when a list itself is wrong (text not found). A
mutant whose test needs what is not installed here is not tried, which is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.mutants import warm
from scripts.mutants.lists import BadList, PlantedMutant, check, read
from scripts.mutants.warm import Job
from scripts.mutants.workers import (
    FAILED,
    NO_TESTS,
    PASSED,
    TIMED_OUT,
    copies,
    failing,
    mutated,
    prepare,
    run_tests,
    spread,
)

CAUGHT, NOT_TRIED, BROKEN = "caught", "NOT TRIED", "BROKEN"
"""BROKEN: the mutant's test fails without it, too."""
LIMIT = 300.0
"""Seconds by the clock after which a test hangs, and the mutant is caught."""


def main(pattern: str, lists: list[Path], workers: int) -> int:
    """Read the lists, check them against the code, try every mutant, print what became of it."""
    prepare()
    mutants = [mutant for mutant in read(lists) if mutant.is_chosen_by(pattern)]
    if not mutants:
        raise BadList(f"no mutant matches {pattern!r}. Give the name of a mutant or of a file, as 'm4*'.")
    check(mutants)
    by_name = {mutant.name: mutant for mutant in mutants}
    outcomes: dict[str, str] = {}
    with copies(workers) as desks:
        for name, result in try_all(mutants, desks):
            outcomes[name] = result
            print(f"{result:9} {name}  {by_name[name].breaks}", flush=True)
    print("\n".join(summary(mutants, outcomes)))
    return int(any(result not in (CAUGHT, NOT_TRIED) for result in outcomes.values()))


def try_all(mutants: list[PlantedMutant], desks: list[Path]) -> Iterator[tuple[str, str]]:
    """The name of each mutant and what became of it, as it becomes known."""
    known: set[str] = set()
    yield from _warm(mutants, desks, known)
    yield from _cold(mutants, desks, known)


def _warm(mutants: list[PlantedMutant], desks: list[Path], known: set[str]) -> Iterator[tuple[str, str]]:
    """Those whose test fails or hangs in a fork of one process, and those whose test cannot run here."""
    jobs = []
    for i, mutant in enumerate(mutants):
        if mutant.file.endswith(".py") and not mutant.file.startswith(warm.COMPILED):
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
    broken = failing(desks[0], sorted({mutant.test for mutant in left})) if left else set()
    for mutant in left:
        if is_broken(mutant.test, broken):
            yield mutant.name, BROKEN
    sound = [mutant for mutant in left if not is_broken(mutant.test, broken)]
    yield from ((mutant.name, result) for mutant, result in spread(sound, desks, outcome))


def is_broken(test: str, broken: set[str]) -> bool:
    """Whether a test, or one of a file's tests, is among those that fail without a mutant."""
    name = test.partition("[")[0]
    return any(one == name or one.startswith(f"{name}::") for one in broken)


def outcome(mutant: PlantedMutant, desk: Path) -> str:
    """`caught` when the test fails or hangs, `SURVIVED` when it passes, `NOT TRIED` when it was skipped, else `ERROR`."""
    with mutated(desk, mutant.file, mutant.mutate):
        run = run_tests(desk, [mutant.test], LIMIT)
    if run.code == PASSED and not re.search(r"\b\d+ passed\b", run.printed):
        return NOT_TRIED
    return {PASSED: "SURVIVED", FAILED: CAUGHT, TIMED_OUT: CAUGHT}.get(run.code, "ERROR")


def summary(mutants: list[PlantedMutant], outcomes: dict[str, str]) -> Iterator[str]:
    """Those that were not caught, with the test that should have, and how many were."""
    for mutant in mutants:
        if outcomes[mutant.name] != CAUGHT:
            yield f"{outcomes[mutant.name]:9} {mutant.name}  {mutant.breaks}"
            yield f"{'':9} {mutant.file}, expected to fail: {mutant.test}"
    found = list(outcomes.values())
    n_left = found.count(NOT_TRIED)
    left = f"; {n_left} not tried, as their tests need what is not installed" if n_left else ""
    yield f"{found.count(CAUGHT)} of {len(found) - n_left} mutants caught{left}"
