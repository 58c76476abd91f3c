"""A list of shards worked off by Ray, an extra: each task gives a recording as bytes, and none is kept in an actor.

Tasks that were lost with their worker are begun again by Ray. Parts are written here, as they come, so the order of merging,
and with it every bit of the whole, is that of local processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.files import write_output
from bnprobe.printing import progress
from bnprobe.scaling.shards import MOST_DEATHS, Shard

AHEAD = 2
"""Tasks per processor that are begun: of more the results would lie in Ray's memory."""


def work_off_on_ray(shards: Sequence[Shard], emit: Callable[[Shard], bytes], workers: int) -> None:
    """Write what `emit` gives for every shard that is not done, one task of one thread each.

    On the cluster that RAY_ADDRESS names, or on one of `workers` processors that is started here for the time.
    What a task raises ends everything, and what was finished stays.
    """
    todo = [shard for shard in shards if not shard.is_done]
    if not todo:
        return
    with _cluster(workers) as ray, progress(len(shards), "recording", "shards") as bar:
        bar.update(len(shards) - len(todo))

        def emitted(shard: Shard) -> bytes:  # Ray takes functions, and nothing else that can be called
            return emit(shard)

        task = ray.remote(num_cpus=1, max_retries=MOST_DEATHS)(emitted)
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        running: dict[Any, Shard] = {}
        while todo or running:
            while todo and len(running) < most:
                shard = todo.pop(0)
                running[task.remote(shard)] = shard
            for done in ray.wait(list(running))[0]:
                shard = running.pop(done)
                write_output(shard.part, _result(ray, done, shard))
                bar.update(1)


def _result(ray: Any, task: Any, shard: Shard) -> bytes:
    try:
        content: bytes = ray.get(task)
    except ray.exceptions.RayTaskError as error:  # what the task raised, in the words of a traceback
        if isinstance(error.cause, BnprobeError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise BnprobeError(
            f"shard {shard.name}: {type(error).__name__} of Ray, {MOST_DEATHS + 1} times. If there was not enough RAM, give "
            "a smaller --batch-size, and run the command again: finished shards are kept."
        ) from None
    return content


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
