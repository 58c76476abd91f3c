"""Files on the way out: whole or not at all, written beside their place, synced, then renamed.

Only regular files are replaced. A link stays and the file that it leads to is replaced; the null device takes everything,
as it always does; pipes, other devices and sockets are refused.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bnprobe.errors import CannotWrite
from bnprobe.files.read import demand_regular, found
from bnprobe.files.stream import STREAM

if sys.platform != "win32":
    import fcntl

STALE = 1.0
"""Seconds after which an unfinished file that nobody locks was left behind."""

_MARK = "bnprobe"
"""Part of the names of unfinished files, so that what others called .part is never taken for ours."""


def write_output(path: Path, content: bytes) -> Path:
    """Write a file that is either complete or not there: to a neighbor first, then renamed. A file that was there keeps
    its mode.

    Raises CannotWrite where the folder cannot be made, is not writable, the disk is full, or `path` is no regular file.
    """
    return write_output_by(path, lambda file: file.write(content))


def write_output_by(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """The same, for a file that `write` fills; whatever it raises leaves the file that was there."""
    with _refusals(path):
        target = _target(path)
        if target is None:
            return path
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        _replace(target, write)
    return path


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path] = ()) -> None:
    """Raise CannotWrite now rather than after minutes of work; nothing is made on disk.

    No output may be one of the `inputs`, or written twice.
    """
    read = {_identity(path): path for path in inputs}
    written: dict[object, Path] = {}
    for path in outputs:
        with _refusals(path):
            target = _target(path)
            if target is None:
                continue
            _demand_folder(target)
            identity = _identity(target)
            if identity in read:
                raise OSError(errno.EEXIST, "is what is read, and would be replaced")
            if identity in written:
                raise OSError(errno.EEXIST, "would be written twice")
            written[identity] = path


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{path}: {error.strerror or error}. Choose another path for the output."
        ) from error


def _target(path: Path) -> Path | None:
    """The file to replace: `path`, or where it leads; None for the null device."""
    if str(path) == STREAM:
        raise OSError(errno.EINVAL, "standard output takes text, json and sarif, and this is another file")
    try:
        status = found(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, f"is a link to {os.readlink(path)}, which is not there") from None
        return path
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.stat(os.devnull).st_rdev:
        return None
    demand_regular(path, status)
    if any(os.path.samestat(status, printed) for printed in _printed_to()):
        raise FileExistsError(errno.EEXIST, "is where the output is printed")
    # opened, not replaced: the system may forbid to follow this link, or to write this file
    os.close(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)))
    return Path(os.path.realpath(path))


def _printed_to() -> Iterator[os.stat_result]:
    """What standard output and error lead to, as far as they are open."""
    for stream in (1, 2):
        with suppress(OSError):
            yield os.fstat(stream)


def _replace(target: Path, write: Callable[[BinaryIO], object]) -> None:
    part = target.parent / f".{target.name[:80]}.{_MARK}-{secrets.token_hex(4)}.part"
    try:
        _write_part(part, write, target)
        _sync_folder(target.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def _write_part(part: Path, write: Callable[[BinaryIO], object], path: Path) -> None:
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
        _keep_mode(descriptor, path)
        write(file)
        file.flush()
        os.fsync(descriptor)
        if not named:
            _give_name(descriptor, part)
        if sys.platform != "win32":
            os.replace(part, path)  # while the lock is held
    if sys.platform == "win32":
        os.replace(part, path)  # only closed files can be renamed there


def _keep_mode(descriptor: int, path: Path) -> None:
    """Who may read and write the file that is replaced, and whose it is, hold for the new one."""
    if sys.platform == "win32":
        return
    try:
        before = path.stat()
    except FileNotFoundError:
        return
    with suppress(OSError):  # only root gives files away
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


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
    ours = re.compile(rf"\.{re.escape(path.name[:80])}\.{_MARK}-[0-9a-f]{{8}}\.part")
    for part in path.parent.iterdir():
        if not ours.fullmatch(part.name):
            continue
        with suppress(OSError):
            if not stat.S_ISREG(part.lstat().st_mode):
                continue
            descriptor = os.open(
                part, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            )
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


def _demand_folder(path: Path) -> None:
    """Raises OSError where no file of this name can be made."""
    folder = path.absolute().parent
    while not _is_there(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write in {folder}")


def _is_there(path: Path) -> bool:
    try:
        found(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _identity(path: Path) -> object:
    """Equal for two names of one file."""
    try:
        status = found(path)
    except OSError:
        name = os.fspath(path).replace("\0", "")
        try:
            return os.path.realpath(name)
        except UnicodeEncodeError:  # a name that no file can have
            return name
    return status.st_dev, status.st_ino
