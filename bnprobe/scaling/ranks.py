"""The processes that torchrun started, as a process group for the time of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import distributed

from bnprobe.errors import BnprobeError

STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables of the environment from which a process group can be made."""


class Ranks(NamedTuple):
    """Which process this is, and of how many."""

    rank: int
    of: int


@contextmanager
def ranks() -> Iterator[Ranks]:
    """The group of this process, made for the block where torchrun started several; 0 of 1 otherwise."""
    several = all(os.environ.get(name) for name in STARTED_BY_TORCHRUN) and os.environ["WORLD_SIZE"] != "1"
    if not several or not distributed.is_available():
        yield Ranks(0, 1)
        return
    made = not distributed.is_initialized()
    if made:
        _begin()
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    finally:
        if made:
            distributed.destroy_process_group()


def _begin() -> None:
    try:
        distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise BnprobeError(
            f"the processes of torchrun do not find one another: {' '.join(str(error).split())[:200]}. Start them with "
            "torchrun, or unset RANK and WORLD_SIZE to run in one."
        ) from error
