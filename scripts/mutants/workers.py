"""Where mutants are tried: copies of the tree, and a pytest of its own for every run.

The tree itself is never touched: every worker has a copy of package and tests.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from scripts.mutants.lists import ROOT, BadList

COPIED = (
    *("bnprobe", "tests", "scripts", "pyproject.toml", "README.md", "CONTRIBUTING.md", "docs"),
    "reports/recalibration.csv",  # which a test renders
)
PASSED, FAILED, NO_TESTS = 0, 1, 5
"""What pytest returns when all tests passed, when one failed, and when there are none."""
NOT_THE_COPY, TIMED_OUT = 99, -9
HEAVY = [
    "numpy",
    "scipy.stats",
    "torch",
    "torchvision",
    "pandas",
    "hypothesis",
    "pytest",
    "safetensors.numpy",
]
"""Imported once for all runs; none of them is ours, so a mutant is always seen."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Run:
    """What pytest returned, and what it printed."""

    code: int
    printed: str


def prepare() -> None:
    """Load the heavy packages once, in the process that all runs are forked from."""
    # some of these import triton, which must know by then that kernels for a GPU run on the CPU here
    os.environ["TRITON_INTERPRET"] = "1"
    multiprocessing.get_context("forkserver").set_forkserver_preload(HEAVY)


@contextmanager
def copies(n: int) -> Iterator[list[Path]]:
    """Copies of the tree for n workers, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        desks = [Path(folder).resolve() / str(i) for i in range(n)]
        for desk in desks:
            for name in COPIED:
                _copy(ROOT / name, desk / name)
        yield desks


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, without what Python cached: stale bytecode would hide a mutant."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


@contextmanager
def mutated(desk: Path, file: str, mutate: Callable[[str], str]) -> Iterator[None]:
    """The copy with one file changed, and changed back at the end."""
    path = desk / file
    original = path.read_text(encoding="utf-8")
    path.write_text(mutate(original), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(original, encoding="utf-8")


def spread(
    items: Sequence[Item], desks: list[Path], job: Callable[[Item, Path], Outcome]
) -> Iterator[tuple[Item, Outcome]]:
    """Do the job for every item on whichever copy is free; items with their outcomes, as they come in."""
    free: SimpleQueue[Path] = SimpleQueue()
    for desk in desks:
        free.put(desk)

    def at_a_free_desk(item: Item) -> Outcome:
        desk = free.get()
        try:
            return job(item, desk)
        finally:
            free.put(desk)

    with ThreadPoolExecutor(len(desks)) as pool:
        jobs = {pool.submit(at_a_free_desk, item): item for item in items}
        for done in as_completed(jobs):
            yield jobs[done], done.result()


def failing(desk: Path, tests: list[str]) -> set[str]:
    """Those of these tests that fail without a mutant, without parameters: their failure would prove nothing."""
    run = run_tests(desk, tests, options=["--maxfail=0", "-rfE"])
    found = {
        match.partition("[")[0] for match in re.findall(r"^(?:FAILED|ERROR) (\S+)", run.printed, re.MULTILINE)
    }
    if run.code not in (PASSED, NO_TESTS) and not found:
        raise BadList(f"the tests of the mutants do not run:\n{run.printed[-3000:]}")
    return found


def run_tests(
    desk: Path,
    tests: Sequence[str],
    limit: float | None = None,
    options: Sequence[str] = (),
    plugins: Sequence[Any] = (),
) -> Run:
    """Run these tests in the copy, stopping at the first failure; after `limit` seconds the run is ended.

    A fork of a process that has imported the heavy packages, but nothing of ours: a second instead of six.
    """
    log = desk / "log.txt"
    arguments = (desk, list(tests), log, list(options), list(plugins))
    process = multiprocessing.get_context("forkserver").Process(target=_in_child, args=arguments)
    process.start()
    process.join(limit)
    if process.is_alive():
        end(process.pid)
        process.join()
        return Run(TIMED_OUT, f"ended after {limit:.0f} s")
    code = process.exitcode if process.exitcode is not None else -1
    return Run(code, log.read_text(encoding="utf-8", errors="replace"))


def end(pid: int | None) -> None:
    """End a run and what it started: its group is its own (`_in_child`)."""
    if pid is not None:
        os.killpg(pid, signal.SIGKILL)


def end_with_parent() -> None:
    """Wait for the end of the program that asked for this run, and end the run: nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _in_child(desk: Path, tests: list[str], log: Path, options: list[str], plugins: list[Any]) -> None:
    """Run pytest on the copy: it comes first on the path, and leaves no bytecode to outlive a mutant."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(desk)
    sys.path.insert(0, str(desk))
    os.environ["PYTHONPATH"] = str(desk)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    # tests that import a program must get that of the copy
    for name in [name for name in sys.modules if name == "scripts" or name.startswith("scripts.")]:
        del sys.modules[name]
    import pytest

    import bnprobe

    if not Path(bnprobe.__file__).is_relative_to(desk):
        print(f"the copy is not what Python imports, but {bnprobe.__file__}")
        sys.exit(NOT_THE_COPY)
    # what is imported for all runs cannot be rewritten by pytest, and need not be
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    fixed = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--tb=line", *quiet]
    sys.exit(int(pytest.main([*fixed, *options, *tests], plugins=plugins)))
