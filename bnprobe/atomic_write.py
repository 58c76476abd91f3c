"""Whole files or none: written beside their place, synced, then renamed."""

from __future__ import annotations

import os
import secrets
import sys
import time
from contextlib import suppress
from pathlib import Path

from bnprobe.errors import CannotWrite

if sys.platform != "win32":
    import fcntl

STALE = 1.0
"""Seconds after which an unfinished file that nobody locks was left behind."""


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file that is either complete or not there: to a neighbor first, then renamed.

    Raises CannotWrite where the folder does not exist, is not writable, or the disk is full.
    """
    part = path.parent / f".{path.name[:80]}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "is a folder, not a file")
        _sweep(path)
        _write_part(part, content, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CannotWrite(
            f"{path}: {error.strerror or error}. Choose another path for the output."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
    return path


def _write_part(part: Path, content: bytes, path: Path) -> None:
    """Write `part`, wait until it is on the disk, and give it the name `path`.

    Where the system can, the file has no name until it is whole, so that a process that is killed leaves nothing,
    or, in the instant between two names, a whole file, which the next save sweeps away.
    """
    try:
        descriptor, named = os.open(part.parent, os.O_TMPFILE | os.O_WRONLY, 0o666), False
    except (AttributeError, OSError):  # another system, or a file system that has no such files
        descriptor, named = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), True
    with os.fdopen(descriptor, "wb") as file:
        _lock(descriptor)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        if not named:
            _give_name(descriptor, part)
        if sys.platform != "win32":
            os.replace(part, path)  # while the lock is held
    if sys.platform == "win32":
        os.replace(part, path)  # only closed files can be renamed there


def _give_name(descriptor: int, part: Path) -> None:
    folder = os.open(part.parent, os.O_RDONLY)
    try:  # with a folder's descriptor the link to the descriptor is followed, else it would be linked itself
        os.link(f"/proc/self/fd/{descriptor}", part.name, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _lock(descriptor: int) -> bool:
    """Whether the file is ours alone until it is closed; a lock goes with the process that held it."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody is writing it, or the file system knows no locks
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what saves of `path` left that were killed."""
    begins, ends = f".{path.name[:80]}.", ".part"
    for part in path.parent.iterdir():
        if not (part.name.startswith(begins) and part.name.endswith(ends)):
            continue
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY)
            try:
                if time.time() - os.fstat(descriptor).st_mtime > STALE and _lock(descriptor):
                    part.unlink()
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the new name on the disk too; a file system that cannot promise it has done what it can."""
    with suppress(AttributeError, OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Raise CannotWrite now rather than after minutes of work; nothing is made on disk."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    reason = None
    if path.is_dir():
        reason = "is a folder, not a file"
    elif not folder.is_dir():
        reason = f"{folder} is a file, not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"no permission to write in {folder}"
    if reason:
        raise CannotWrite(f"{path}: {reason}. Choose another path for the output.")
