"""Mutants tried in forks of one process that has collected their tests: each costs the tests it meets, and no start.

A mutant is put in by exchanging the code of the functions that are alive, so this serves statements in functions
only. What was computed at import stays as it was, and a program that a test starts does not see the mutant: one that
survives here may still be caught in a copy that is changed on the disk.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import inf
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from time import monotonic, process_time
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest

from scripts.mutants.lists import BadList
from scripts.mutants.workers import FAILED, NO_TESTS, PASSED, TIMED_OUT, end, end_with_parent, run_tests

COMPILED = "bnprobe/reductions/cpu/"
"""What is compiled and kept on the disk, under a mark of the files' text: in a fork, a mutant would be kept as what the
unchanged text means, and fail tests from then on."""

CONTROL = -1
"""The number of the last job, which changes nothing: every test that has caught something must pass in it."""


@dataclass(frozen=True)
class Job:
    """A file's text as a mutant has it, and the tests to ask in this order.

    After `enough` seconds of computing no other test is begun; after `limit` seconds by the clock they hang.
    """

    number: int
    file: str
    text: str
    tests: tuple[str, ...]
    limit: float
    enough: float = inf


class Untrusted(BadList):
    """Tests that fail in a warm process without any mutant, too, and so have caught nothing."""

    def __init__(self, tests: Sequence[str]) -> None:
        super().__init__(f"{tests[0]} fails without any mutant, too; correct it first")
        self.tests = frozenset(tests)


class Result(NamedTuple):
    """What pytest returned for a job, and the test that failed."""

    number: int
    code: int
    failed: str


def try_all(desk: Path, jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """The results of these jobs as they come in; raises Untrusted after the last if a test fails without a mutant, too.

    The code of a job is NO_TESTS where a file that needs what is not installed leaves out all of its tests.
    """
    tests = sorted({test.partition("::")[0] for job in jobs for test in job.tests})
    queue = multiprocessing.get_context("forkserver").SimpleQueue()
    warm = Warm(desk, jobs, queue, workers)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(run_tests, desk, tests, options=["-s"], plugins=[warm])
        run.add_done_callback(lambda _: queue.put(None))
        untrusted = []
        for result in (Result(*found) for found in iter(queue.get, None)):
            if result.number != CONTROL:
                yield result
            elif result.code != PASSED:
                untrusted.append(result.failed)
    if untrusted:
        raise Untrusted(untrusted)
    if run.result().code not in (PASSED, NO_TESTS):
        raise BadList(f"the tests of the mutants do not run:\n{run.result().printed[-3000:]}")


class Warm:
    """A plugin of pytest: once the tests are collected, it runs every job in a fork of its own, a few at a time."""

    def __init__(
        self, desk: Path, jobs: Sequence[Job], queue: SimpleQueue[tuple[int, int, str] | None], workers: int
    ):
        self.desk, self.jobs, self.queue, self.workers = desk, jobs, queue, workers

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            test = item.nodeid.partition("[")[0]
            for name in {item.nodeid, test, test.partition("::")[0]}:
                items.setdefault(name, []).append(item)
        killers: list[str] = []
        waiting = [(job, [item for test in job.tests for item in items.get(test, ())]) for job in self.jobs]
        self._run(session, waiting, killers)
        if killers:
            control = Job(CONTROL, "", "", tuple(killers), 600.0)
            again = [item for item in session.items if item.nodeid in set(killers)]
            self._run(session, [(control, again)], [])
        return True

    def _run(
        self, session: pytest.Session, waiting: list[tuple[Job, list[pytest.Item]]], killers: list[str]
    ) -> None:
        """Fork for every job, wait for each, and pass on what became of it."""
        running: dict[int, tuple[BaseProcess, Job, float, SimpleQueue[str]]] = {}
        context = multiprocessing.get_context("fork")
        while waiting or running:
            while waiting and len(running) < self.workers:
                job, items = waiting.pop(0)
                failed: SimpleQueue[str] = context.SimpleQueue()
                process = context.Process(target=self._in_fork, args=(session, items, job, failed))
                process.start()
                running[process.sentinel] = (process, job, monotonic() + job.limit, failed)
            soonest = min(until for _, _, until, _ in running.values())
            ended = wait(list(running), max(soonest - monotonic(), 0.0))
            for sentinel, (process, job, until, failed) in list(running.items()):
                late = monotonic() > until
                if sentinel not in ended and not late:
                    continue
                if sentinel not in ended:
                    end(process.pid)
                process.join()
                code = process.exitcode if sentinel in ended and process.exitcode is not None else TIMED_OUT
                tests = []
                while not failed.empty():
                    tests.append(failed.get())
                killers.extend(tests)
                for test in tests or [""]:
                    # a tuple: the asking process has another copy of our classes
                    self.queue.put((job.number, code, test))
                del running[sentinel]

    def _in_fork(
        self, session: pytest.Session, items: list[pytest.Item], job: Job, failed: SimpleQueue[str]
    ) -> None:
        """Put the mutant in and run its tests up to the first failure, the control all; nothing outlives this process."""
        os.setsid()
        threading.Thread(target=end_with_parent, daemon=True).start()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        if not items:
            os._exit(NO_TESTS)
        if job.file:
            exchange(self.desk / job.file, job.text)
        for item, following in zip(items, [*items[1:], None], strict=True):
            if process_time() > job.enough:
                break
            n_failed = session.testsfailed
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed > n_failed:
                failed.put(item.nodeid)
                if job.number != CONTROL:
                    os._exit(FAILED)
        os._exit(FAILED if session.testsfailed else PASSED)


def exchange(path: Path, text: str) -> int:
    """Give every living function of a file the code that it has in another text of the file; how many changed."""
    was, becomes = (
        compile(source, str(path), "exec", dont_inherit=True)
        for source in (path.read_text(encoding="utf-8"), text)
    )
    pairs = _pairs(was, becomes)
    new = {old: code for old, code in pairs if old != code and old.co_freevars == code.co_freevars}
    found = [one for one in gc.get_objects() if type(one) is FunctionType and one.__code__ in new]
    for function in found:
        function.__code__ = new[function.__code__]
    return len(found)


def _pairs(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Code objects in the same place of two texts, the outer ones first."""
    yield old, new
    inside = ([one for one in code.co_consts if isinstance(one, CodeType)] for code in (old, new))
    for pair in zip(*inside, strict=False):
        yield from _pairs(*pair)
