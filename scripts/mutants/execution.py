"""Which tests run which line, and how long they take: so that a mutant meets the fewest tests first.

One run of the tests under coverage.py with a context per test. It decides only the order in which a mutant's
own tests are asked, and which files of the rest of the suite are asked at all.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import coverage
import pytest

from scripts.mutants.lists import ROOT, BadList
from scripts.mutants.packages import Package
from scripts.mutants.source import Source
from scripts.mutants.workers import PASSED, run_tests

DATA, SECONDS = ".coverage", "seconds.json"
"""Where the traced run leaves its data, in the copy; the first is the default of coverage.py."""


@dataclass(frozen=True)
class Execution:
    """For every file the tests by line, and for every test its seconds; tests are named without parameters."""

    key: str
    lines: dict[str, dict[str, list[str]]]
    seconds: dict[str, float]

    def tests_of(self, file: str, line: int, source: Source, folders: tuple[str, ...]) -> list[str]:
        """The tests in these folders that run a line: those named after the file first, and of each kind the quickest.

        What runs at import belongs to no test in particular: then all that run any line of the file.
        """
        lines, in_function = source.statement_at(line)
        by_line = self.lines.get(file, {})
        numbers = [str(n) for n in lines] if in_function else list(by_line)
        found = {test for n in numbers for test in by_line.get(n, ()) if is_in(test, folders)}
        return sorted(
            found, key=lambda test: (not _is_named_after(test, file), self.seconds.get(test, 0.0), test)
        )

    def within(self, seconds: float, tests: list[str]) -> list[str]:
        """The first of these tests, as far as they take no more than so many seconds together; at least one."""
        total = list(accumulate(self.seconds.get(test, 0.0) for test in tests))
        return tests[: max(bisect_right(total, seconds), 1)]

    def files_that_may_notice(
        self, file: str, line: int, source: Source, places: tuple[str, ...]
    ) -> list[str]:
        """The test files in these places that could fail for a line, whatever fixtures and caches hide.

        Of a line in a function those that run the file at all, and those that were written since; of a line
        that runs at import all.
        """
        _, in_function = source.statement_at(line)
        running = {test.partition("::")[0] for tests in self.lines.get(file, {}).values() for test in tests}
        new = self.new_files(places)
        return [path for path in test_files(places) if not in_function or path in running or path in new]

    def named_after(self, file: str, places: tuple[str, ...]) -> list[str]:
        """The test files in these places that are named after a file of the package."""
        return [path for path in test_files(places) if _is_named_after(path, file)]

    def new_files(self, places: tuple[str, ...]) -> list[str]:
        """The test files in these places that were written since."""
        known = {test.partition("::")[0] for test in self.seconds}
        return [path for path in test_files(places) if path not in known]

    def time_of(self, tests: list[str]) -> float:
        """Seconds that tests took in the traced run; of a file or folder, those of all its tests."""
        return sum(seconds for test, seconds in self.seconds.items() if is_in(test, tuple(tests)))


def _is_named_after(test: str, file: str) -> bool:
    return f"/test_{Path(file).stem}" in test


def test_files(places: tuple[str, ...]) -> list[str]:
    """Every test file at these places, relative to the root."""
    found = {
        path
        for place in places
        for path in ([ROOT / place] if place.endswith(".py") else (ROOT / place).rglob("test_*.py"))
    }
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def is_in(test: str, places: tuple[str, ...]) -> bool:
    """Whether a test is one of these, or in one of these files or folders."""
    return any(test == place or test.startswith((f"{place}/", f"{place}::")) for place in places)


def observe(desk: Path, packages: list[Package], workers: int, kept: Path | None = None) -> Execution:
    """Run the tests of these packages and see which lines they run; read from `kept` when that still holds."""
    tests = sorted({test for package in packages for test in (*package.tests, *package.suite)})
    key = _key(tests)
    if kept and kept.is_file():
        found = Execution(**json.loads(kept.read_text(encoding="utf-8")))
        if found.key == key:
            return found
    found = _observe(desk, tests, workers, key)
    if kept:
        kept.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def _key(tests: list[str]) -> str:
    """A digest of what is observed: the code of the package, and the names of the tests' folders and files."""
    digest = hashlib.sha256("\n".join(tests).encode())
    for path in sorted((ROOT / "bnprobe").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _observe(desk: Path, tests: list[str], workers: int, key: str) -> Execution:
    options = ["--cov", "--cov-context=test", "--cov-report=", "--maxfail=0", "-rfE", f"-n{workers}"]
    run = run_tests(desk, tests, options=options, plugins=[Stopwatch(desk / SECONDS)])
    if run.code != PASSED:
        raise BadList(f"tests fail without any mutant; correct them first:\n{run.printed[-3000:]}")
    data = coverage.CoverageData(str(desk / DATA))
    data.read()
    lines = {
        Path(file).relative_to(desk).as_posix(): _tests_by_line(data, file)
        for file in sorted(data.measured_files())
    }
    return Execution(key, lines, json.loads((desk / SECONDS).read_text(encoding="utf-8")))


def _tests_by_line(data: coverage.CoverageData, file: str) -> dict[str, list[str]]:
    """The tests that run each line, from contexts such as "tests/a.py::test_b[1]|run"."""
    return {
        str(line): sorted(
            {_without_parameters(context.rpartition("|")[0]) for context in contexts if context}
        )
        for line, contexts in data.contexts_by_lineno(file).items()
    }


def _without_parameters(test: str) -> str:
    return test.partition("[")[0]


class Stopwatch:
    """A plugin of pytest that writes down how long every test took, setting up included."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = _without_parameters(report.nodeid)
        self.seconds[test] = self.seconds.get(test, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.seconds), encoding="utf-8")
