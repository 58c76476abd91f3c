"""Files on the way in: a regular file, opened without waiting, and read under a limit.

Whatever is wrong is an OSError whose `strerror` says it in words, so that callers put it into an error of their own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from importlib import resources
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast, overload

from bnprobe.files.remote import RemoteFile, Url

Place = Path | Url
"""Where a file is: on a disk, or behind an address."""

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

_CHUNK = 2**20


@overload
def open_input(path: Path, most: int | None = None) -> BufferedReader: ...
@overload
def open_input(path: Place, most: int | None = None) -> BinaryIO: ...
def open_input(path: Place, most: int | None = None) -> BinaryIO:
    """A regular file, opened for reading; links are followed.

    Raises OSError for what is none, since a pipe may keep its reader waiting for ever and a device has no end, and for
    a file of more than `most` bytes; CannotFetch for a remote one that cannot be had.
    """
    if isinstance(path, Url):
        ranges = path.ranges()
        if most is not None and ranges.size > most:
            raise too_large(path, most)
        return cast(BinaryIO, RemoteFile(ranges))
    demand_regular(path, found(path))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:  # again, of what was opened: the name may stand for something else by now
        opened = os.fstat(descriptor)
        demand_regular(path, opened)
        if most is not None and opened.st_size > most:
            raise too_large(path, most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_input(path: Place, most: int) -> bytes:
    """The content of a regular file. Raises OSError, also for more than `most` bytes, whatever size the file claims."""
    with open_input(path, most) as file:
        parts, left = [], most
        while part := file.read(min(_CHUNK, left + 1)):
            left -= len(part)
            if left < 0:
                raise too_large(path, most)
            parts.append(part)
    return b"".join(parts)


def read_shipped(package: str, *names: str) -> str:
    """A text that comes with bnprobe, by its package and its place in it."""
    return resources.files(package).joinpath(*names).read_text("utf-8")


def found(path: Path) -> os.stat_result:
    """What a name stands for. Raises OSError, also where no file can have such a name."""
    try:
        return path.stat()
    except ValueError:  # a zero byte, or half of a character
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from None


def demand_regular(path: Path, status: os.stat_result) -> None:
    """Raises OSError where `status` is that of something else."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file", str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"not a regular file but {kind}", str(path))


def too_large(path: Place, most: int) -> OSError:
    """The error of a file that is longer than what is read."""
    return OSError(
        errno.EFBIG, f"larger than the {most / 2**20:,.0f} MB that are read of such a file", str(path)
    )


def size_and_time(file: BinaryIO) -> tuple[int, int]:
    """Bytes of an opened file and when it was modified, which show that it is another by now; of a remote one its size
    alone, since every part of it is looked at when it comes."""
    if isinstance(file, RemoteFile):
        return file.ranges.size, 0
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def is_folder(path: Place) -> bool:
    """Whether there is a folder of this name; no error for a name that nothing can have. No address is that of one."""
    return isinstance(path, Path) and _is(path, stat.S_ISDIR)


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder whose names end so, in the order of their names; none for what cannot be listed."""
    return [path for path in _inside(folder) if path.name.endswith(suffix) and is_file(path)]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names; none for what cannot be listed."""
    return [path for path in _inside(folder) if is_folder(path)]


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name[0] != ".")
    except (OSError, ValueError):  # ValueError: no folder can have this name
        return []


def is_file(path: Place) -> bool:
    """Whether there is a regular file of this name, or a link to one; of an address, that will show."""
    return isinstance(path, Url) or _is(path, stat.S_ISREG)


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(found(path).st_mode)
    except OSError:
        return False
