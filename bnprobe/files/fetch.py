"""Files at an address, as https://… or s3://…: fetched whole by fsspec into a temporary file, under a limit.

Whatever is wrong is an OSError whose `strerror` says it in words, as for files on this machine.
"""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "memory")
"""What is asked of fsspec. Others of its protocols run programs, or lead from one address to another."""

LARGEST = 2**36
"""Bytes that are fetched of one file: 64 GB."""

TRIES = 3
"""Attempts at a file whose server fails, or that arrives cut."""

PAUSE = 1.0
"""Seconds before the second attempt, twice as many before the third."""

_SILENCE = 60.0
"""Seconds without a byte after which an attempt has failed."""


def demand_fetchable(address: str) -> None:
    """Raises OSError, without asking any server, for what cannot be fetched: protocol, or a library that is missing."""
    _file_system(address)


@contextmanager
def fetched(address: str, most: int = LARGEST) -> Iterator[Path]:
    """The file at an address, in a temporary folder, for as long as the block lasts.

    Raises OSError where it is gone, access is denied, or it has more than `most` bytes; and where its server fails again
    and again.
    """
    file_system, path = _file_system(address)
    with tempfile.TemporaryDirectory(prefix="bnprobe-") as folder:
        local = Path(folder, "fetched")
        for attempt in range(1, TRIES + 1):
            try:
                file_system.get_file(path, str(local), callback=_limit(most))
                break
            except Exception as error:  # those of fsspec, and of the library of each protocol
                refusal, final = _refusal(error)
                if final or attempt == TRIES:
                    raise refusal from None
            time.sleep(PAUSE * attempt)
        yield local


def _file_system(address: str) -> tuple[Any, str]:
    """What fsspec reads it by, and its name there."""
    protocol = address.partition("://")[0].lower()
    if protocol not in PROTOCOLS or "::" in address:
        raise OSError(errno.EPROTONOSUPPORT, f"no address of {', '.join(PROTOCOLS)}")
    try:
        options = {"client_kwargs": {"timeout": _patience()}} if protocol in ("http", "https") else {}
        file_system, path = import_module("fsspec").core.url_to_fs(address, **options)
    except ImportError as error:
        needed = (
            "fsspec[http]"
            if protocol in ("http", "https")
            else f"the library that fsspec needs for {protocol}"
        )
        said = (
            f"{protocol} needs {error.name or 'a library'}, which is not installed: run pip install {needed}"
        )
        raise OSError(errno.ENOSYS, said) from None
    return file_system, path


def _patience() -> Any:
    """A large file may take hours; silence ends an attempt."""
    return import_module("aiohttp").ClientTimeout(total=None, sock_connect=20.0, sock_read=_SILENCE)


def _limit(most: int) -> Any:
    """Counts what arrives, and raises at one byte too many, whatever size the server claims."""

    class Limit(import_module("fsspec.callbacks").Callback):  # type: ignore[misc]  # a base known at run time
        def relative_update(self, inc: int = 1) -> None:
            self.value += inc
            if self.value > most:
                raise OSError(
                    errno.EFBIG, f"larger than the {most / 2**30:,.3g} GB that are fetched of a file"
                )

    return Limit()


def _refusal(error: Exception) -> tuple[OSError, bool]:
    """What to say, and whether another attempt would change nothing."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(errno.ENOENT, "not found there"), True
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(errno.EACCES, "access denied, or its token has expired"), True
    if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        return OSError(error.errno, error.strerror), True
    said = f"the server answered with status {status}" if status else f"broke off with {type(error).__name__}"
    return OSError(errno.EIO, f"{said}, {TRIES} times"), False
