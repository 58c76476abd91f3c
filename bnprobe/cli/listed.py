"""Text files that list what a command works off, a path per line."""

from __future__ import annotations

from pathlib import Path

from bnprobe.errors import BnprobeError
from bnprobe.files import read_input

LONGEST_LIST = 2**26
"""Bytes of a list: a million paths."""


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a file without blanks around them; empty ones, and those that begin with #, are left out.

    Raises BnprobeError where it cannot be read; `what` says what belongs into a line.
    """
    try:
        lines = read_input(path, LONGEST_LIST).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise BnprobeError(f"{path}: {reason}. Give a text file with one {what} per line.") from None
    return [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
