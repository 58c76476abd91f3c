"""A pool of local processes: fresh interpreters, one thread of kernels each, and one line where one of them is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

from bnprobe.errors import BnprobeError


@contextmanager
def processes(n: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for the block; a process that is killed is an error of ours."""
    try:
        with pool_of(n) as pool:
            yield pool
    except BrokenProcessPool:
        raise BnprobeError(
            "a worker process was ended from outside, perhaps because there was not enough RAM. Run the command again, "
            "with fewer --workers."
        ) from None


@contextmanager
def pool_of(n: int) -> Iterator[ProcessPoolExecutor]:
    """A pool for the block; what has not begun when the block fails never begins. Raises BrokenProcessPool.

    Processes are spawned and not forked: a fork of one that runs OpenMP threads may hang (pytorch#45198).
    """
    with ProcessPoolExecutor(n, mp_context=get_context("spawn"), initializer=_begin) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def end(pool: ProcessPoolExecutor) -> None:
    """Kill its processes, whatever they do: what they do is of no use any more."""
    for process in list(pool._processes.values()):  # until 3.14 there is no public way
        process.kill()


def _begin() -> None:
    """One thread for each process, before torch counts processors, unless the user says otherwise: so results do not
    depend on the number of processes. Ctrl-C reaches every process of a terminal, and is the parent's business."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent: one that is killed cannot say so, and its workers would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
