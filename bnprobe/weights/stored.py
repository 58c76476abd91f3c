"""A tensor that lies in a file: its shape is known, and its numbers are read when, and as often as, something is computed.

They are read, and not mapped: where another process cuts a mapped file, the system ends whoever looks at it.
"""

from __future__ import annotations

import math
import threading
import weakref

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place, RemoteFile, open_input, size_and_time
from bnprobe.files.archive import Span
from bnprobe.files.pickles import BYTES, extent
from bnprobe.weights.number_types import NARROW, REAL, decoded
from bnprobe.weights.tensor import MOST_DIMENSIONS, Array, Tensor


class Source:
    """A file that stays open for as long as one of its tensors is around."""

    def __init__(self, path: Place) -> None:
        self.path, self.file = path, open_input(path)
        self._lock = threading.Lock()
        self.as_found = size_and_time(self.file)
        self.remote = self.file if isinstance(self.file, RemoteFile) else None
        weakref.finalize(self, self.file.close)

    def read(self, start: int, n_bytes: int) -> Array:
        """Some of its bytes. Raises BadCheckpoint where the file has changed since it was opened."""
        held = np.empty(n_bytes, np.uint8)
        with self._lock:
            self.file.seek(start)
            n = self.file.readinto(held.data)  # type: ignore[attr-defined]
        if n < n_bytes or size_and_time(self.file) != self.as_found:
            raise self.changed()
        return held

    def changed(self) -> BadCheckpoint:
        """The error of a file that is another by now."""
        return BadCheckpoint(
            f"{self.path} changed while it was read. Wait until it is written, and run this again."
        )


def _foreign(dtype: str, n_dimensions: int) -> str:
    """What a tensor is that cannot be read; empty for the others."""
    if n_dimensions > MOST_DIMENSIONS:
        return f"a tensor of {n_dimensions} dimensions"
    return "" if dtype in BYTES else f"a tensor of the type {dtype}, {NARROW}"


class Stored(Tensor):
    """A view of some bytes of a file, within their bounds; `offset` counts numbers from their beginning."""

    __slots__ = ("offset", "source", "span", "stride")

    def __init__(
        self,
        source: Source,
        span: Span,
        dtype: str,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        offset: int = 0,
    ) -> None:
        self.source, self.span, self.offset = source, span, offset
        self.dtype, self.shape, self.stride = dtype, shape, stride
        self.dim, self.numel = len(shape), math.prod(shape)
        self.foreign = _foreign(dtype, len(shape))
        self.is_number, self.itemsize = not self.foreign and dtype in REAL, BYTES.get(dtype, 1)
        self.storage = ((id(source), span.start), span.size)

    @property
    def far(self) -> bool:
        """As of any tensor."""
        remote = self.source.remote
        return remote is not None and not remote.ranges.holds(*self.place)

    @property
    def place(self) -> tuple[int, int]:
        """Its first byte in the file, and bytes from there to its last."""
        n = extent(self.shape, self.stride)
        return self.span.start + self.offset * self.itemsize, n * self.itemsize

    def array(self) -> Array:
        """As of any tensor."""
        return self._read(self.shape, self.offset)

    def rows(self, begin: int, end: int) -> Array:
        """As of any tensor; nothing else of it is read."""
        return self._read((end - begin, *self.shape[1:]), self.offset + begin * self.stride[0])

    def content(self) -> Array:
        """The bytes from its first number to its last."""
        return self.source.read(*self.place)

    def _read(self, shape: tuple[int, ...], offset: int) -> Array:
        n = extent(shape, self.stride)
        flat = decoded(self._bytes(offset, n), self.dtype)
        if not n:
            return flat.reshape(shape)
        return as_strided(flat, shape, [step * flat.itemsize for step in self.stride])

    def _bytes(self, offset: int, n: int) -> Array:
        return self.source.read(self.span.start + offset * self.itemsize, n * self.itemsize)

    def __repr__(self) -> str:
        return f"Stored({self.shape}, {self.dtype}, in {self.source.path.name})"
