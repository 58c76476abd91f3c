"""Work that ends the process that does it; without torch, so that a process begins at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from bnprobe.errors import BadImages
from bnprobe.scaling.shards import Shard


def dies_once(shard: Shard) -> None:
    """A process that the system kills in the middle of its shard, the first time."""
    mark = Path(shard.place) / "died"
    if shard.index % 2 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    _whole(shard, f"{shard.index} of {shard.of}")


def emits_and_dies_once(shard: Shard) -> bytes:
    """As `dies_once`, but for an engine that takes bytes."""
    mark = Path(shard.place) / "died"
    if shard.index % 2 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{shard.index} of {shard.of} by {os.environ['OMP_NUM_THREADS']}".encode()


def emits_or_fails(shard: Shard) -> bytes:
    """A shard that cannot be read."""
    if shard.index == 1:
        raise BadImages(f"shard {shard.name}: gone")
    return b"done"


def sticks_once(shard: Shard) -> None:
    """A process that hangs, the first time, as on a file system that does not answer."""
    mark = Path(shard.place) / "stuck"
    if shard.index == 0 and not mark.exists():
        mark.touch()
        time.sleep(600)
    _whole(shard, "done")


def one_shard(folder: str) -> Shard:
    """A shard in a folder."""
    place = Path(folder, "0")
    place.mkdir()
    return Shard(str(place), 0, 1, Path(folder, "0.part"))


def says_who_and_waits(shard: Shard) -> None:
    """A process that is found by its number, while its parent is killed."""
    (Path(shard.place) / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def dies(shard: Shard) -> None:
    """A shard that is too large for any process."""
    if shard.index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _whole(shard, "done")


def _whole(shard: Shard, text: str) -> None:
    """Write a part as recordings are written: where one process is killed, the others are ended in the middle of theirs."""
    unfinished = shard.part.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(shard.part)
