"""The processes that run one model together, as torch.distributed counts them."""

from __future__ import annotations

from torch import distributed

from bnprobe.recording import Source


def n_ranks() -> int:
    """How many there are; 1 where there is no process group."""
    return (
        int(distributed.get_world_size())
        if distributed.is_available() and distributed.is_initialized()
        else 1
    )


def own_part() -> tuple[Source, ...]:
    """Which of them this is, as the source of a recording; nothing where there is one."""
    return (Source.rank(distributed.get_rank(), n_ranks()),) if n_ranks() > 1 else ()
