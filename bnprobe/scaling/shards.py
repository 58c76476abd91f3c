"""A list of shards worked off by local processes, however often one of them is killed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from bnprobe.errors import BnprobeError
from bnprobe.files import is_file
from bnprobe.files.address import shown
from bnprobe.printing import note, progress
from bnprobe.scaling.processes import end, pool_of

MOST_DEATHS = 3
"""Times in a row that a process may end without any shard having been finished before the command gives up."""

LATE = 3.0
"""Times the longest of the finished shards after which one that still runs is begun once more."""

LOOK = 0.5
"""Seconds between two looks at what runs."""


@dataclass(frozen=True)
class Shard:
    """One of `of` shards: where its samples are, and the file that its recording becomes."""

    place: str
    index: int
    of: int
    part: Path

    @property
    def name(self) -> str:
        """What messages and recordings call it."""
        return shown(self.place)

    @property
    def is_done(self) -> bool:
        """Whether its recording is there: files appear whole or not at all."""
        return is_file(self.part)


def work_off(shards: Sequence[Shard], work: Callable[[Shard], None], workers: int) -> None:
    """Call `work` for every shard that is not done, in `workers` fresh processes of one thread each.

    What the work raises ends everything, and what was finished stays. A process that is killed costs its shard, which
    another one then begins again.
    """
    deaths = 0
    with progress(len(shards), "recording", "shards") as bar:
        while todo := [shard for shard in shards if not shard.is_done]:
            bar.update(len(shards) - len(todo) - bar.n)
            try:
                with pool_of(min(workers, len(todo))) as pool:
                    _run(pool, todo, work, min(workers, len(todo)), bar.update)
            except BrokenProcessPool:
                left = sum(not shard.is_done for shard in shards)
                deaths = deaths + 1 if left == len(todo) else 1
                if deaths > MOST_DEATHS:
                    raise BnprobeError(
                        f"worker processes were ended from outside {deaths} times, the last while they recorded one of "
                        f"{', '.join(shard.name for shard in todo[:workers])}. If there was not enough RAM, give a "
                        "smaller --batch-size or fewer --workers, and run the command again: finished shards are kept."
                    ) from None
                note("a worker process was ended from outside; its shard is begun again.")
        bar.update(len(shards) - bar.n)


def _run(
    pool: ProcessPoolExecutor,
    shards: Sequence[Shard],
    work: Callable[[Shard], None],
    workers: int,
    advance: Callable[[int], object],
) -> None:
    """Until every shard is done. One that takes far longer than the others is begun once more where a worker is idle, as a
    machine may be slow or a file system hang; either gives the same file."""
    running = {pool.submit(work, shard): shard for shard in shards}
    begun: dict[Future[None], float] = {}
    longest, repeated, left = 0.0, set[Shard](), set(shards)
    while left:
        done, _ = wait(running, LOOK, FIRST_COMPLETED)
        now = time.monotonic()
        for future in running:
            if future.running() or future in done:
                begun.setdefault(future, now)
        for future in done:
            future.result()
            longest = max(longest, now - begun[future], LOOK)
            shard = running.pop(future)
            advance(shard in left)
            left.discard(shard)
        late = [
            shard
            for future, shard in running.items()
            if longest and now - begun.get(future, now) > LATE * longest
        ]
        for shard in late[: workers - len(running)]:
            if shard in left and shard not in repeated:
                repeated.add(shard)
                running[pool.submit(work, shard)] = shard
    if running:
        end(pool)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
