"""A list of shards worked off by local processes, however often one of them is killed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from bnprobe.errors import BnprobeError
from bnprobe.files import is_file
from bnprobe.files.fetch import is_address, without_secrets
from bnprobe.printing import note, progress
from bnprobe.scaling.processes import pool_of

MOST_DEATHS = 3
"""Times in a row that a process may end without any shard having been finished before the command gives up."""


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
        return without_secrets(self.place) if is_address(self.place) else self.place

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
                    _run(pool, todo, work, bar.update)
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
    advance: Callable[[int], object],
) -> None:
    for done in as_completed([pool.submit(work, shard) for shard in shards]):
        done.result()
        advance(1)


def available_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
