"""Work that ends the process that does it; without torch, so that a process begins at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bnprobe.scaling.shards import Shard


def dies_once(shard: Shard) -> None:
    """A process that the system kills in the middle of its shard, the first time."""
    mark = Path(shard.place) / "died"
    if shard.index % 2 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    shard.part.write_text(f"{shard.index} of {shard.of}")


def dies(shard: Shard) -> None:
    """A shard that is too large for any process."""
    if shard.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    shard.part.write_text("done")
