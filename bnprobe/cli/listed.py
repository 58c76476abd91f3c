"""Text files that list what a command works off, a path per line."""

from __future__ import annotations

import errno
from pathlib import Path

from bnprobe.errors import BnprobeError
from bnprobe.files import read_input

LONGEST_LIST, MOST_LINES = 2**28, 2**20
"""Bytes and lines of a list: a million paths."""


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a file without blanks around them; empty ones, and those that begin with #, are left out.

    Raises BnprobeError where it cannot be read; `what` says what belongs into a line.
    """
    try:
        content = read_input(path, LONGEST_LIST)
        if content.count(b"\n") > MOST_LINES:
            raise OSError(errno.EFBIG, f"more than the {MOST_LINES:,} lines that are read")
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise BnprobeError(f"{path}: {reason}. Give a text file with one {what} per line.") from None
    return [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
