"""A part of a file as a file of its own."""

from __future__ import annotations

import io
import os
from typing import BinaryIO


class ReadAnywhere(io.RawIOBase):
    """A file with a place of its own, over bytes that can be had from any place: a subclass has `size` and `read_at`."""

    _at = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        raise NotImplementedError

    def read_at(self, start: int, n: int) -> bytes:
        """At most `n` bytes from a place on; fewer at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        """As of any file."""
        return True

    def seekable(self) -> bool:
        """As of any file."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        start = self.size if whence == os.SEEK_END else {os.SEEK_SET: 0, os.SEEK_CUR: self._at}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """As of any file."""
        content = self.read_at(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class PartOfFile(ReadAnywhere):
    """The bytes from `start` on, `size` of them, of an opened file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size = file, start, size

    @property
    def size(self) -> int:
        """Bytes of the part."""
        return self._size

    def read_at(self, start: int, n: int) -> bytes:
        """Nothing beyond the part."""
        self._file.seek(self._start + start)
        return self._file.read(max(0, min(n, self._size - start)))
