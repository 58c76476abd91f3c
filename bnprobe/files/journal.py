"""Results of a long command on a disk as they come: a line each, there as a whole or not at all however the command ends."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from bnprobe.errors import CannotWrite
from bnprobe.files.read import demand_regular

if sys.platform != "win32":
    import fcntl

LONGEST_LINE = 2**28
"""Bytes of a result."""


def _number(value: Any) -> Any:
    """One of numpy's as one of Python's."""
    return value.item()


class Journal:
    """Results by their names, in a file beside the output that is made of them; each holds a mark of what it is of.

    Where a name comes twice the later result counts. A line that was cut when a command was killed is taken off. In RAM
    are names and marks alone.
    """

    def __init__(self, beside: Path) -> None:
        """Raises CannotWrite where another command writes the same output, or nothing can be written there."""
        self.path = beside.with_name(f".{beside.name}.bnprobe-results")
        self._places: dict[str, tuple[Any, int]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            self._file = os.fdopen(os.open(self.path, flags, 0o666), "r+b")
        except OSError as error:
            raise self._refusal(error.strerror or str(error)) from None
        try:
            demand_regular(self.path, os.fstat(self._file.fileno()))
            if sys.platform != "win32":
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._index()
        except OSError as error:
            self._file.close()
            busy = isinstance(error, BlockingIOError)
            raise self._refusal(
                "another command writes this output" if busy else error.strerror or str(error)
            ) from None

    def _refusal(self, reason: str) -> CannotWrite:
        return CannotWrite(f"{self.path}: {reason}. Choose another path for the output.")

    def _index(self) -> None:
        at = 0
        while line := self._file.readline(LONGEST_LINE):
            try:
                name, mark, _ = json.loads(line)
                if line[-1:] != b"\n" or not isinstance(name, str):
                    break
            except (ValueError, TypeError, RecursionError):
                break
            self._places[name] = (mark, at)
            at += len(line)
        self._file.truncate(at)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def mark(self, name: str) -> Any:
        """The mark of a result; None where there is none of this name."""
        return self._places.get(name, (None, 0))[0]

    def add(self, name: str, mark: Any, result: Any) -> None:
        """Write a result. Raises CannotWrite."""
        line = json.dumps([name, mark, result], default=_number).encode() + b"\n"
        try:
            at = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise self._refusal(error.strerror or str(error)) from None
        self._places[name] = (mark, at)

    def result(self, name: str) -> Any:
        """The result of a name that has one."""
        self._file.seek(self._places[name][1])
        return json.loads(self._file.readline(LONGEST_LINE))[2]

    def remove(self) -> None:
        """Nobody needs it any more."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._places:
            self.remove()
        self._file.close()
