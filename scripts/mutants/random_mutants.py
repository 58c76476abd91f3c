"""Random mutants, tried: nobody chose them, so they find what the authors of the tests did not think of.

Each meets the package's own tests that run its line, then the package's other tests as far as they run its file,
then those files of the rest of the suite that run its line; the first failure ends it. A run that takes much
longer than without a mutant counts as a failure, too. Exits with 1 when too few are caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scripts.mutants import equivalent
from scripts.mutants.execution import Execution, observe
from scripts.mutants.lists import BadList
from scripts.mutants.packages import Package, chosen
from scripts.mutants.sample import RandomMutant, at, sample
from scripts.mutants.source import Source
from scripts.mutants.workers import (
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


def main(plan: Plan) -> int:
    """Draw the sample, try every mutant, print what became of it, and the survivors once more."""
    prepare()
    mutants = draw(plan)
    entries = equivalent.read()
    print(f"{len(mutants)} mutants; the tests are run once without any", flush=True)
    outcomes: dict[RandomMutant, str] = {}
    with copies(plan.workers) as desks:
        execution = observe(desks[0], asked_for(plan), plan.kept)
        for mutant, outcome in spread(mutants, desks, partial(outcome_of, execution, entries, plan.nearest)):
            outcomes[mutant] = outcome
            print(described(mutant, outcome), flush=True)
    print("\n".join(summary(outcomes)))
    return int(share_caught(outcomes) < plan.at_least)


def draw(plan: Plan) -> list[RandomMutant]:
    """The sample, or every mutant of the place that is asked for."""
    packages = asked_for(plan)
    mutants = at(packages, plan.at) if plan.at else sample(packages, plan.seed, plan.number)
    if not mutants:
        raise BadList(f"no mutant of {plan.at or 'these packages'}. Give FILE or FILE:LINE of a package.")
    return mutants


def asked_for(plan: Plan) -> list[Package]:
    """The packages, without the rest of the suite if that is not asked for."""
    packages = chosen(plan.packages)
    return packages if plan.with_suite else [replace(package, suite=()) for package in packages]


def outcome_of(
    execution: Execution,
    entries: list[equivalent.Equivalent],
    nearest: bool,
    mutant: RandomMutant,
    desk: Path,
) -> str:
    """Who caught the mutant, or that it survived, or that it cannot be caught."""
    if any(entry.is_that_of(mutant.file, mutant.change, mutant.source) for entry in entries):
        return EQUIVALENT
    with mutated(desk, mutant.file, mutant.mutate):
        for who, tests in stages(
            execution, mutant.package, mutant.file, mutant.change.line, mutant.source, nearest
        ):
            limit = STARTING + PATIENCE * execution.time_of(tests)
            run = run_tests(desk, tests, limit)
            if run.code == NOT_THE_COPY:
                raise BadList(run.printed)
            if run.code != PASSED:
                return TIMEOUT if run.code == TIMED_OUT else who
    return SURVIVED


def stages(
    execution: Execution, package: Package, file: str, line: int, source: Source, nearest: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """The tests that a mutant of this line must face, in this order, and whose they are.

    `nearest` leaves out those that are not known to run a line of a function, whatever fixtures and caches hide.
    """
    where = (file, line, source)
    own, rest = execution.tests_of(*where, package.tests), execution.tests_of(*where, package.suite)
    files = sorted({test.partition("::")[0] for test in rest})
    if nearest and source.statement_at(line)[1]:
        others = execution.new_files(package.tests)
    else:
        others, rest = execution.files_that_may_notice(*where, package.tests), files
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
