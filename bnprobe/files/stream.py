"""Standard input as a file: it is copied to one of a temporary folder first, since tensors are read where they lie."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STREAM = "-"
"""What stands for standard input and output among the arguments."""

NAME = "standard input"
"""What it is called where the name of a file is shown."""

LARGEST = 2**35
"""Bytes that are taken of a stream, 32 GB: it has no size, and might never end."""

_CHUNK = 2**20


@contextmanager
def standard_input(most: int = LARGEST) -> Iterator[Path]:
    """A file with everything that comes in, for as long as the block lasts.

    Raises OSError for more than `most` bytes, for a stream that is closed or a terminal, and for a full disk.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise OSError(errno.EBADF, "nothing is piped in")
    with tempfile.TemporaryDirectory(prefix="bnprobe-") as folder:
        path = Path(folder, NAME)
        with path.open("xb") as file:
            left = most
            while part := sys.stdin.buffer.read(min(_CHUNK, left + 1)):
                left -= len(part)
                if left < 0:
                    raise OSError(
                        errno.EFBIG, f"more than the {most / 2**30:,.0f} GB that are read of a stream"
                    )
                file.write(part)
        yield path
