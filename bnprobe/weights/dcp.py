"""Folders of torch.distributed.checkpoint: tensors in parts, in the files that the ranks of a run wrote.

Each part is what `torch.save` wrote, somewhere in a file. It is opened when its numbers are asked for, and of a tensor in
parts only those with the rows that are needed.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, cast

import numpy as np

from bnprobe.errors import BadCheckpoint
from bnprobe.files import Place, archive, dcp, is_file, open_input, read_input, size_and_time
from bnprobe.files.archive import Span
from bnprobe.files.dcp import Chunk, Whole
from bnprobe.files.limits import TooMuch
from bnprobe.files.pickles import BYTES, Declared, UnknownName, read_plain
from bnprobe.files.span import PartOfFile
from bnprobe.weights.messages import one_line
from bnprobe.weights.number_types import REAL
from bnprobe.weights.stored import Source, Stored
from bnprobe.weights.tensor import Array, Tensor

MOST_OPEN = 64
"""Files that are open at a time: a run of a thousand ranks left a thousand."""

CONVERT = (
    "If you trust it, run python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt where it was "
    "made, and use that file"
)


def is_dcp(path: Place) -> TypeGuard[Path]:
    """Whether a path is such a folder."""
    return isinstance(path, Path) and is_file(path / dcp.NAME)


def read_dcp(folder: Path) -> dict[Any, Any]:
    """The state dict that was saved, its tensors in their places in it. Raises BadCheckpoint, and runs nothing."""
    try:
        tensors = dcp.read_metadata(read_input(folder / dcp.NAME, dcp.LARGEST))
        files = _Files(folder, {chunk.file for tensor in tensors for chunk in tensor.chunks})
        state: dict[Any, Any] = {}
        for tensor in tensors:
            files.demand_there(tensor.chunks)
            _put(state, tensor.path, InParts(files, tensor))
        return state
    except UnknownName as error:
        raise _refused(
            folder, f"its {dcp.NAME}, a pickle, asks for {error}, which is not part of the format"
        ) from None
    except TooMuch as error:
        raise _refused(folder, f"its {dcp.NAME}, a pickle, was not read: {error}") from None
    except BadCheckpoint:
        raise
    except Exception as error:  # damage can raise nearly anything
        reason = (
            str(error) if type(error) is ValueError else getattr(error, "strerror", "") or one_line(error)
        )
        raise BadCheckpoint(
            f"{folder} is not a whole checkpoint of torch.distributed.checkpoint ({' '.join(reason.split())}). "
            "Copy the whole folder again."
        ) from None


def _refused(place: Place, what: str) -> BadCheckpoint:
    return BadCheckpoint(f"{place}: {what}, so it was not loaded. {CONVERT}.")


def _put(state: dict[Any, Any], path: tuple[str | int, ...], tensor: Tensor) -> None:
    """A tensor in its place; under its whole path as one name where something else stands in the way."""
    table = state
    for key in path[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            state[".".join(map(str, path))] = tensor
            return
        table = inner
    table[path[-1]] = tensor


class _Files:
    """The files of a folder, some of them open; each must stay as it was found."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._open: OrderedDict[str, Source] = OrderedDict()
        self._found = {}
        for name in sorted(names):
            with open_input(folder / name) as file:
                self._found[name] = size_and_time(file)

    def demand_there(self, chunks: Iterable[Chunk]) -> None:
        """Raises ValueError where a chunk lies beyond the end of its file."""
        for chunk in chunks:
            if chunk.start + chunk.n_bytes > self._found[chunk.file][0]:
                raise ValueError(f"{chunk.file} is shorter than {dcp.NAME} says")

    def source(self, name: str) -> Source:
        """A file, opened again where it was closed in between."""
        with self._lock:
            source = self._open.get(name) or Source(self._folder / name)
            if source.as_found != self._found[name]:
                raise source.changed()
            self._open[name] = source
            self._open.move_to_end(name)
            if len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return source


class InParts(Tensor):
    """A tensor whose parts lie in several files."""

    __slots__ = ("_chunks", "_files", "_name")

    def __init__(self, files: _Files, whole: Whole) -> None:
        self._files, self._chunks, self._name = files, whole.chunks, ".".join(map(str, whole.path))
        self.dtype, self.shape = whole.dtype, whole.shape
        self.dim, self.numel, self.foreign = len(whole.shape), math.prod(whole.shape), ""
        self.is_number, self.itemsize = whole.dtype in REAL, BYTES[whole.dtype]
        places = {(chunk.file, chunk.start): chunk.n_bytes for chunk in whole.chunks}
        self.storage = ((id(self), 0), sum(places.values()))

    def array(self) -> Array:
        """As of any tensor."""
        if self.shape:
            return self.rows(0, self.shape[0])
        return self._stored(self._chunks[0]).array()

    def rows(self, begin: int, end: int) -> Array:
        """As of any tensor; parts without one of these rows are not opened."""
        shape = (end - begin, *self.shape[1:])
        joined, known = None, np.zeros(shape, bool)
        for chunk in self._chunks:
            first, last = max(begin, chunk.offsets[0]), min(end, chunk.offsets[0] + chunk.sizes[0])
            if first >= last:
                continue
            part = self._stored(chunk).rows(first - chunk.offsets[0], last - chunk.offsets[0])
            joined = np.empty(shape, part.dtype) if joined is None else joined
            others = zip(chunk.offsets[1:], chunk.sizes[1:], strict=True)
            at = (slice(first - begin, last - begin), *(slice(start, start + n) for start, n in others))
            joined[at], known[at] = part, True
        if joined is None:
            joined = np.empty(shape, np.float32)
        if not known.all():
            raise BadCheckpoint(
                f"the parts of {self._name} overlap, and leave some of it out. Save it again."
            )
        return joined

    def _stored(self, chunk: Chunk) -> Stored:
        """A part, as its own table declares it."""
        source = self._files.source(chunk.file)
        try:
            part = cast(BinaryIO, PartOfFile(source.file, chunk.start, chunk.n_bytes))
            there = archive.entries(part)
            found = read_plain(archive.content(part, there["data.pkl"], chunk.n_bytes))
            if not isinstance(found, Declared) or (found.dtype, found.shape) != (self.dtype, chunk.sizes):
                raise ValueError(f"its table says another type or shape than {dcp.NAME}")
            span = there[f"data/{found.storage.key}"]
            if span.size != found.storage.numel * BYTES[found.storage.dtype]:
                raise ValueError("a storage is cut short")
            span = Span(chunk.start + span.start, span.size)
            return Stored(source, span, found.dtype, found.shape, found.stride, found.offset)
        except UnknownName as error:
            what = f"the part of {self._name} in it, a pickle, asks for {error}, which is no tensor"
            raise _refused(source.path, what) from None
        except Exception as error:
            raise BadCheckpoint(
                f"{source.path}: the part of {self._name} in it is not whole ({one_line(error)}). "
                "Copy the whole folder again."
            ) from None

    def __repr__(self) -> str:
        return f"InParts({self.shape}, {self.dtype}, {len(self._chunks)} parts)"
