"""Random mutants, tried: nobody chose them, so they find what the authors of the tests did not think of.

Each meets the package's own tests that run its line, first in a fork of a warm process (`warm`); who survives these
is put into a copy and meets them again, then the package's other tests as far as they run its file, then those files
of the rest of the suite that run its line; the first failure ends it. A run that takes much longer than without a
mutant counts as a failure, too. Exits with 1 when too few are caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path

from scripts.mutants import equivalent, warm
from scripts.mutants.execution import Execution, is_in, observe
from scripts.mutants.lists import BadList
from scripts.mutants.packages import Package, chosen
from scripts.mutants.sample import RandomMutant, at, one_a_line, sample
from scripts.mutants.source import Source
from scripts.mutants.warm import Job
from scripts.mutants.workers import (
    NO_TESTS,
    NOT_THE_COPY,
    PASSED,
    TIMED_OUT,
    copies,
    mutated,
    prepare,
    run_tests,
    spread,
)

OWN, SUITE, TIMEOUT, SURVIVED, EQUIVALENT = "own tests", "suite", "timeout", "SURVIVED", "equivalent"
PATIENCE, STARTING = 5.0, 120.0
"""A run may take so many times what its tests take without a mutant, and so many seconds more."""
NEAR = 30.0
"""Seconds of computing that the tests near a mutant may take."""


@dataclass(frozen=True)
class Plan:
    """What is asked for on the command line."""

    packages: list[str]
    seed: int
    number: int
    at: str | None
    at_least: float
    workers: int
    kept: Path | None
    with_suite: bool = True
    nearest: bool = False
    every_line: bool = False


def main(plan: Plan) -> int:
    """Draw the sample, try every mutant, print what became of it, and the survivors once more."""
    prepare()
    mutants = draw(plan)
    print(f"{len(mutants)} mutants; the tests are run once without any", flush=True)
    outcomes: dict[RandomMutant, str] = {}
    with copies(plan.workers) as desks:
        execution = observe(desks[0], asked_for(plan), plan.workers, plan.kept)
        for mutant, outcome in try_all(execution, mutants, desks, plan.nearest):
            outcomes[mutant] = outcome
            print(described(mutant, outcome), flush=True)
    print("\n".join(summary(outcomes)))
    return int(share_caught(outcomes) < plan.at_least)


def draw(plan: Plan) -> list[RandomMutant]:
    """The sample, one mutant of every line, or every mutant of the place that is asked for."""
    packages = asked_for(plan)
    if plan.at:
        mutants = at(packages, plan.at)
    elif plan.every_line:
        mutants = one_a_line(packages, plan.seed)
    else:
        mutants = sample(packages, plan.seed, plan.number)
    if not mutants:
        raise BadList(f"no mutant of {plan.at or 'these packages'}. Give FILE or FILE:LINE of a package.")
    return mutants


def asked_for(plan: Plan) -> list[Package]:
    """The packages, without the rest of the suite if that is not asked for."""
    packages = chosen(plan.packages)
    return packages if plan.with_suite else [replace(package, suite=()) for package in packages]


def try_all(
    execution: Execution, mutants: list[RandomMutant], desks: list[Path], nearest: bool
) -> Iterator[tuple[RandomMutant, str]]:
    """What became of every mutant, as it becomes known: most are caught in a warm process, which takes seconds."""
    entries = equivalent.read()
    same = [one for one in mutants if any(e.is_that_of(one.file, one.change, one.source) for e in entries)]
    yield from ((mutant, EQUIVALENT) for mutant in same)
    left = [mutant for mutant in mutants if mutant not in same]
    for mutant, outcome in try_warm(execution, list(left), desks, nearest):
        if outcome != SURVIVED or nearest:
            left.remove(mutant)
            yield mutant, outcome
    yield from spread(left, desks, partial(outcome_of, execution, nearest))


def try_warm(
    execution: Execution, mutants: list[RandomMutant], desks: list[Path], nearest: bool
) -> Iterator[tuple[RandomMutant, str]]:
    """What becomes of those in functions; they meet the tests nearest to them, or all of their own that run the line."""
    enough = NEAR if nearest else inf
    jobs = [
        Job(i, one.file, one.mutate(one.source.text), tuple(tests), _limit(execution, tests), enough)
        for i, one in enumerate(mutants)
        if one.in_function
        and not one.file.startswith(warm.COMPILED)
        and (tests := _asked_first(execution, one, nearest))
    ]
    for result in warm.try_all(desks[0], jobs, len(desks)) if jobs else ():
        mutant = mutants[result.number]
        who = OWN if is_in(result.failed, mutant.package.tests) else SUITE
        yield mutant, {PASSED: SURVIVED, NO_TESTS: SURVIVED, TIMED_OUT: TIMEOUT}.get(result.code, who)


def _asked_first(execution: Execution, mutant: RandomMutant, nearest: bool) -> list[str]:
    """The tests of a mutant's first stage, or of all stages where only the nearest are asked."""
    tests = [tests for _, tests in _stages_of(execution, mutant, nearest)]
    return list(chain(*tests if nearest else tests[:1]))


def _stages_of(execution: Execution, mutant: RandomMutant, nearest: bool) -> Iterator[tuple[str, list[str]]]:
    return stages(execution, mutant.package, mutant.file, mutant.change.line, mutant.source, nearest)


def _limit(execution: Execution, tests: list[str]) -> float:
    return STARTING + PATIENCE * execution.time_of(tests)


def outcome_of(execution: Execution, nearest: bool, mutant: RandomMutant, desk: Path) -> str:
    """Who caught the mutant in a copy that is changed on the disk, or that it survived."""
    with mutated(desk, mutant.file, mutant.mutate):
        for who, tests in _stages_of(execution, mutant, nearest):
            run = run_tests(desk, tests, _limit(execution, tests))
            if run.code == NOT_THE_COPY:
                raise BadList(run.printed)
            if run.code != PASSED:
                return TIMEOUT if run.code == TIMED_OUT else who
    return SURVIVED


def stages(
    execution: Execution, package: Package, file: str, line: int, source: Source, nearest: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """The tests that a mutant must face, in this order, and whose they are.

    `nearest` leaves out those that are not known to run its line, whatever fixtures and caches hide.
    """
    where = (file, line, source)
    own, rest = execution.tests_of(*where, package.tests), execution.tests_of(*where, package.suite)
    if nearest:
        if not source.statement_at(line)[1]:
            own, rest = execution.within(NEAR, own), execution.within(NEAR, rest)
        others = sorted({*execution.named_after(file, package.tests), *execution.new_files(package.tests)})
    else:
        others = execution.files_that_may_notice(*where, package.tests)
        rest = sorted({test.partition("::")[0] for test in rest})
    found = ((OWN, own), (OWN, others), (SUITE, rest))
    return ((who, tests) for who, tests in found if tests)


def described(mutant: RandomMutant, outcome: str) -> str:
    """A line of the table."""
    return f"{outcome:10}  {mutant.place:40}  {mutant.line}  →  {mutant.becomes}"


def share_caught(outcomes: dict[RandomMutant, str]) -> float:
    """Share of the mutants that were caught, of those that can be; 1 when there is none."""
    counted = [outcome for outcome in outcomes.values() if outcome != EQUIVALENT]
    return sum(outcome != SURVIVED for outcome in counted) / len(counted) if counted else 1.0


def summary(outcomes: dict[RandomMutant, str]) -> Iterator[str]:
    """How many were caught by whom, and the survivors as entries for the list of equivalent ones."""
    found = list(outcomes.values())
    yield ""
    for mutant, outcome in outcomes.items():
        if outcome == SURVIVED:
            yield from entry_for(mutant)
    counts = ", ".join(
        f"{name} {found.count(name)}" for name in (OWN, SUITE, TIMEOUT, SURVIVED, EQUIVALENT) if name in found
    )
    n = len(found) - found.count(EQUIVALENT)
    yield f"{share_caught(outcomes):.1%} of {n} mutants caught ({counts})"


def entry_for(mutant: RandomMutant) -> Iterator[str]:
    """A survivor as it would stand in the list of equivalent mutants, once `why` is proven."""
    yield f"# {mutant.place}"
    yield "[[equivalent]]"
    yield f'file = "{mutant.file}"'
    yield f"line = '''{mutant.line}'''"
    yield f"becomes = '''{mutant.becomes}'''"
    yield 'why = ""'
    yield ""
