"""A tensor that lies in a file: its shape is known, and its numbers are read when, and as often as, something is computed.

They are read, and not mapped: where another process cuts a mapped file, the system ends whoever looks at it.
"""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bnprobe.errors import BadCheckpoint
from bnprobe.files import open_input
from bnprobe.files.archive import Span
from bnprobe.files.pickles import extent


class Source:
    """A file that stays open for as long as one of its tensors is around."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, open_input(path)
        self._lock = threading.Lock()
        self._as_found = self._state()
        weakref.finalize(self, self.file.close)

    def read(self, start: int, n_bytes: int) -> bytearray:
        """Some of its bytes. Raises BadCheckpoint where the file has changed since it was opened."""
        held = bytearray(n_bytes)
        with self._lock:
            self.file.seek(start)
            n = self.file.readinto(held)
        if n < n_bytes or self._state() != self._as_found:
            raise BadCheckpoint(
                f"{self.path} changed while it was read. Wait until it is written, and run this again."
            )
        return held

    def _state(self) -> tuple[int, int]:
        status = os.fstat(self.file.fileno())
        return status.st_size, status.st_mtime_ns


class Stored(Tensor):
    """Whatever is computed with it is computed with a tensor that is read for it, and forgotten again."""

    _source: Source
    _storage: Span
    _start: int

    @staticmethod
    def __new__(
        cls,
        source: Source,
        storage: Span,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        offset: int = 0,
    ) -> Stored:
        """A view of some of the file's bytes whose first number is the one at `offset`."""
        made: Stored = Tensor._make_wrapper_subclass(cls, shape, strides=stride, dtype=dtype)
        made._source, made._storage = source, storage
        made._start = storage.start + offset * dtype.itemsize
        return made

    @property
    def _local_tensor(self) -> Tensor:
        """The tensor itself, as distributed ones call what a process holds of them."""
        n = extent(tuple(self.shape), self.stride())
        if not n:
            return torch.empty(self.shape, dtype=self.dtype)
        held = self._source.read(self._start, n * self.element_size())
        return torch.frombuffer(held, dtype=self.dtype).as_strided(self.shape, self.stride())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute with what was read."""
        args, kwargs = tree_map(_read, (args, kwargs or {}))
        return func(*args, **kwargs)

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def numpy(self, *, force: bool = False) -> Any:
        """As of any tensor; torch has no such operation that could be carried out on what was read."""
        return self._local_tensor.numpy(force=force)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Stored({tuple(self.shape)}, {self.dtype}, in {self._source.path.name})"


def _read(value: Any) -> Any:
    return value._local_tensor if isinstance(value, Stored) else value


def storage_of(tensor: Tensor) -> tuple[object, int]:
    """What the numbers of a tensor lie in, equal for views of one storage, and its size in bytes."""
    if isinstance(tensor, Stored):
        return (id(tensor._source), tensor._storage.start), tensor._storage.size
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
