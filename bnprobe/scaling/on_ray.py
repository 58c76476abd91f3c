"""Jobs worked off by Ray, an extra: each task gives what it made, as the bytes of a recording, and an actor keeps nothing.

Tasks that were lost with their worker are begun again by Ray. What they give is written here, as it comes, so the order of
merging, and with it every bit of the whole, is that of local processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from bnprobe.errors import BnprobeError
from bnprobe.files import write_output
from bnprobe.printing import progress
from bnprobe.scaling.shards import MOST_DEATHS, Shard

AHEAD = 2
"""Tasks per processor that are begun: of more the results would lie in Ray's memory."""


_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Tasks(Generic[_Job, _Result]):
    """What is done to every job, what a job is called in messages, and what to do where one needs too much RAM."""

    work: Callable[[_Job], _Result]
    name: Callable[[_Job], str]
    smaller: str


def work_off_on_ray(shards: Sequence[Shard], emit: Callable[[Shard], bytes], workers: int) -> None:
    """Write what `emit` gives for every shard that is not done, one task of one thread each.

    What a task raises ends everything, and what was finished stays.
    """
    todo = [shard for shard in shards if not shard.is_done]
    tasks = Tasks(emit, lambda shard: f"shard {shard.name}", "give a smaller --batch-size")
    with progress(len(shards), "recording", "shards") as bar:
        bar.update(len(shards) - len(todo))
        for shard, content in results_on_ray(todo, tasks, workers):
            write_output(shard.part, content)
            bar.update(1)


def results_on_ray(
    jobs: Sequence[_Job], tasks: Tasks[_Job, _Result], workers: int
) -> Iterator[tuple[_Job, _Result]]:
    """Every job with what its task gives, as they come: on the cluster that RAY_ADDRESS names, or on one of `workers`
    processors that is started here for the time. Raises what a task raises."""
    if not jobs:
        return
    work, left = tasks.work, list(reversed(jobs))
    with _cluster(workers) as ray:

        def done_there(job: _Job) -> _Result:  # Ray takes functions, and nothing else that can be called
            return work(job)

        task = ray.remote(num_cpus=1, max_retries=MOST_DEATHS)(done_there)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, _Job] = {}
        while left or running:
            while left and len(running) < most:
                job = left.pop()
                running[task.remote(job)] = job
            for done in ray.wait(list(running))[0]:
                job = running.pop(done)
                yield job, _result(ray, done, tasks, job)


def _result(ray: Any, done: Any, tasks: Tasks[_Job, _Result], job: _Job) -> _Result:
    try:
        result: _Result = ray.get(done)
    except ray.exceptions.RayTaskError as error:  # what the task raised, in the words of a traceback
        if isinstance(error.cause, BnprobeError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise BnprobeError(
            f"{tasks.name(job)}: {type(error).__name__} of Ray, {MOST_DEATHS + 1} times. If there was not enough RAM, "
            f"{tasks.smaller}, and run the command again: what was finished is kept."
        ) from None
    return result


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, connected for the block. Raises BnprobeError where it is not installed, or no cluster answers."""
    try:
        ray = import_module("ray")
    except ImportError:
        raise BnprobeError("--engine ray needs Ray, which is not installed. Run pip install ray.") from None
    if ray.is_initialized():
        yield ray
        return
    address = os.environ.get("RAY_ADDRESS")
    own = {} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise BnprobeError(
            f"Ray does not answer ({said}). Check RAY_ADDRESS ({address or 'not set'})."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()
