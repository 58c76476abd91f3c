"""The `.metadata` of a folder that torch.distributed.checkpoint wrote: a pickle, read as plain data and believed in nothing.

torch reads it with `pickle.load`, which runs whatever it asks for. Here the classes of the format stand for one of ours
that holds fields and does nothing, and every other name is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

from bnprobe.files.pickles import BYTES, DTYPES, MAKERS, Maker, read_plain

NAME = ".metadata"
"""Of the file, in the folder with the shards."""

LARGEST = 2**28
"""Bytes of it that are read."""

MOST_DIMENSIONS = 32

DEEPEST = 16
"""Tables in one another, in the state dict that was saved."""


class Fields:
    """An object of the format: what its pickle says of it, and no behavior."""

    __slots__ = ("held",)

    def __setstate__(self, state: object) -> None:
        self.held = state

    def of(self, name: str) -> Any:
        """A field; None where it has none of this name."""
        held = getattr(self, "held", None)
        return held.get(name) if isinstance(held, dict) else None


class Chunk(NamedTuple):
    """A part of a tensor: where it is in the tensor, and in which bytes of which file of the folder."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    n_bytes: int


class Whole(NamedTuple):
    """A tensor of the folder; `path` is where it stood in the state dict."""

    path: tuple[str | int, ...]
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"

_CLASSES = {
    **dict.fromkeys(
        (
            (_METADATA, name)
            for name in (
                *("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"),
                *("TensorProperties", "MetadataIndex", "StorageMeta"),
            )
        ),
        Fields,
    ),
    (_FILES, "_StorageInfo"): Fields,
}

_NOTHING = Maker(lambda *_: None)

_MAKERS: dict[tuple[str, str], Any] = {
    ("torch", "Size"): MAKERS["torch", "Size"],
    **{("torch", dtype): MAKERS["torch", dtype] for dtype in BYTES},
    ("torch.serialization", "_get_layout"): Maker(lambda name: name),
    (_METADATA, "_MEM_FORMAT_ENCODING"): _NOTHING,
    # where it was written, which nobody asks
    **{
        (module, name): _NOTHING
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    **_CLASSES,
}
"""All that may be asked for. Arguments of makers are plain, as everything is that was read before."""


def read_metadata(content: bytes) -> list[Whole]:
    """The tensors of a folder. Raises UnknownName where it asks for what is not part of the format, and ValueError, or what
    a damaged pickle raises, where it does not fit together."""
    whole = read_plain(content, _MAKERS)
    if not isinstance(whole, Fields):
        raise ValueError("it holds no metadata")
    declared, planned = _table(whole.of("state_dict_metadata")), whole.of("planner_data")
    paths = planned if isinstance(planned, dict) else {}
    places = dict(_places(_table(whole.of("storage_data"))))
    found = []
    for name, one in declared.items():
        if not isinstance(name, str) or not isinstance(one, Fields):
            raise ValueError("a name in it is none")
        if one.of("chunks") is not None:  # what has none is an object that was pickled, and is left alone
            found.append(_tensor(name, one, _path(name, paths.get(name)), places))
    return found


def _table(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError("a table of it is missing")
    return value


def _places(stored: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, tuple[int, ...]], tuple[str, int, int]]]:
    """Where the chunks of tensors lie, by the name of the tensor and the chunk's offsets."""
    for index, info in stored.items():
        if not isinstance(index, Fields) or not isinstance(info, Fields):
            raise ValueError("a place in it is none")
        name, offsets = index.of("fqn"), index.of("offset")
        if offsets is None:
            continue  # of an object that was pickled
        file, start, n = (info.of(field) for field in ("relative_path", "offset", "length"))
        if info.of("transform_descriptors"):
            raise ValueError("its shards are compressed")
        if (
            not isinstance(name, str)
            or not _sizes(offsets)
            or not isinstance(file, str)
            or not _sizes((start, n))
        ):
            raise ValueError("a place in it is none")
        if file in ("", ".", "..") or set(file) & set("/\\:\0"):
            raise ValueError(f"it names {file[:80]!r}, which is not a file of its own folder")
        yield (name, tuple(offsets)), (file, start, n)


def _tensor(
    name: str,
    one: Fields,
    path: tuple[str | int, ...],
    places: Mapping[tuple[str, tuple[int, ...]], tuple[str, int, int]],
) -> Whole:
    shape, chunks, properties = one.of("size"), one.of("chunks"), one.of("properties")
    held = getattr(properties, "held", None)
    dtype = held[0] if isinstance(held, tuple) and held else None
    if (
        not isinstance(dtype, Maker)
        or dtype not in DTYPES
        or not _sizes(shape)
        or not isinstance(chunks, list)
    ):
        raise ValueError(f"what it says of {name[:80]} is no tensor")
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{name[:80]} has {len(shape)} dimensions")
    parts = []
    for chunk in chunks:
        offsets, sizes = (
            (chunk.of("offsets"), chunk.of("sizes")) if isinstance(chunk, Fields) else (None, None)
        )
        if not _sizes(offsets) or not _sizes(sizes) or not len(offsets) == len(sizes) == len(shape):
            raise ValueError(f"a part of {name[:80]} is none")
        if any(at + size > whole for at, size, whole in zip(offsets, sizes, shape, strict=True)):
            raise ValueError(f"a part of {name[:80]} lies outside of it")
        if math.prod(sizes):
            place = places.get((name, tuple(offsets)))
            if place is None:
                raise ValueError(f"a part of {name[:80]} is in no file")
            parts.append(Chunk(tuple(offsets), tuple(sizes), *place))
    if sum(math.prod(part.sizes) for part in parts) != math.prod(shape):
        raise ValueError(f"the parts of {name[:80]} do not make it up")
    return Whole(path, DTYPES[dtype], tuple(shape), tuple(parts))


def _path(name: str, path: Any) -> tuple[str | int, ...]:
    """Where a tensor stood in the state dict; its name alone where that is not told."""
    told = isinstance(path, tuple) and 0 < len(path) <= DEEPEST
    if told and all(type(key) in (str, int) for key in path):
        return tuple(path)
    return (name,)


def _sizes(numbers: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(numbers, tuple) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
