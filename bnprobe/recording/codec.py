"""Recordings on disk: named arrays and one JSON text in a safetensors file, nothing executable.

The file's metadata hold the JSON (`recording`), its schema version, and a digest for the JSON and
for each array, so that a file that was cut, edited or written by something else is refused with the
name of the field, before any number of it is believed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from bnprobe.errors import BadRecordingFile, BnprobeError
from bnprobe.files import is_folder, open_input
from bnprobe.files.header import read_header
from bnprobe.files.limits import TooMuch
from bnprobe.recording import stored

_Data = TypeVar("_Data")

Arrays = Mapping[str, np.ndarray[Any, Any]]
Decoder = Callable[[Any, str, Arrays], Any]
"""A node of the JSON, its place, and the arrays by their places, to a value."""

SCHEMA = 4
"""Raised when a file written by this version could not be read by the last one."""

RENAMED_SINCE_1 = {
    "certificate": "integrity",
    "wiring": "neighbours",
    "ledger": "call_log",
    "feeder": "producer",
}
"""Fields that files of schema 1 call otherwise."""


LARGEST = 2 * 2**30
"""Bytes of a recording that are read, and of its numbers in RAM: a hundred thousand channels with histograms take a tenth of
that."""

MOST_RECORDS, MOST_ITEMS = 2**18, 2**23
"""Records in a list, such as layers or merged parts, and texts or numbers in one, such as the names of samples."""

AGAIN = "Record it again, or download the file again."

CHECKPOINTS = (".pt", ".pth", ".th", ".bin", ".ckpt", ".safetensors")
"""Endings of files of weights, which another function reads."""


def encode(recording: Any) -> bytes:
    """The file of a recording: a dataclass of dataclasses, tuples, arrays and scalars."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    text = json.dumps(_encode(recording, "recording", arrays), allow_nan=True)
    metadata = {
        "format": "bnprobe recording",
        "schema": str(SCHEMA),
        "recording": text,
        "digest": _digest(text.encode()),
        "digests": json.dumps({name: _digest(array) for name, array in arrays.items()}),
    }
    return _packed(arrays, metadata)


def decode(path: Path, cls: type[_Data]) -> _Data:
    """The `cls` in a file. Raises BadRecordingFile, naming the field, where it is not one that `encode` made."""
    metadata, arrays = _read(path)
    return _believe(path.name, metadata, arrays, cls)


def decode_bytes(content: bytes | memoryview, name: str, cls: type[_Data]) -> _Data:
    """The `cls` in what would be a file's content; messages call it `name`."""
    try:
        metadata, arrays = _held(BytesIO(content), name)
    except (OSError, ValueError) as error:
        raise BadRecordingFile(f"{name}: truncated, or not a bnprobe recording ({error}). {AGAIN}") from error
    return _believe(name, metadata, arrays, cls)


def _packed(arrays: Mapping[str, np.ndarray[Any, Any]], metadata: Mapping[str, str]) -> bytes:
    """The safetensors layout: the length of the header, the header, the numbers.

    Written here, because the library orders metadata by chance, and two files of one recording must be the same.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))  # for the same reason
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[name] = {"dtype": stored.name_of(array), "shape": array.shape, "data_offsets": (start, end)}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % stored.WIDEST)  # so that the numbers lie where float64 may lie
    return b"".join(
        (len(header).to_bytes(8, "little"), header, *(array.tobytes() for array in arrays.values()))
    )


def is_recording(path: Path) -> bool:
    """Whether a file says that it is a recording, by its ending or in its header; a checkpoint does not."""
    if path.suffix == ".bnp":
        return True
    try:
        with open_input(path) as file:
            return read_header(file).metadata.get("format") == "bnprobe recording"
    except (OSError, ValueError):
        return False


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    if is_folder(path):
        raise BadRecordingFile(f"{path}: is a folder. Give the file that recording.save(path) wrote.")
    try:
        with open_input(path, LARGEST) as file:
            return _held(file, path.name, _instead(path))
    except FileNotFoundError:
        raise BadRecordingFile(
            f"{path}: no such file. Recordings are written with recording.save(path)."
        ) from None
    except TooMuch as error:
        raise BadRecordingFile(
            f"{path.name}: {error}, and no more are read. Record fewer layers: attach(model, layers=...)."
        ) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise BadRecordingFile(
            f"{path.name}: truncated, or not a bnprobe recording ({reason}). {_instead(path)}"
        ) from error


def _held(
    file: BinaryIO, name: str, instead: str = AGAIN
) -> tuple[dict[str, str], dict[str, np.ndarray[Any, Any]]]:
    metadata, entries = read_header(file)
    if metadata.get("format") != "bnprobe recording":
        raise BadRecordingFile(f"{name}: not a bnprobe recording. {instead}")
    in_ram = 8 * sum(math.prod(entry.shape) for entry in entries.values())
    if in_ram > LARGEST:
        raise TooMuch(f"it holds numbers of {in_ram:,} bytes")
    return metadata, dict(stored.read(file, entries))


def _instead(path: Path) -> str:
    """What to do with a file that is not a recording, by its name."""
    if path.suffix in CHECKPOINTS:
        return f"If it is a checkpoint: bnprobe.check({str(path)!r})."
    return AGAIN


def _believe(
    name: str, metadata: dict[str, str], arrays: dict[str, np.ndarray[Any, Any]], cls: type[_Data]
) -> _Data:
    """Check version and digests, then rebuild the recording."""
    schema = metadata.get("schema", "")
    if schema not in {str(known) for known in range(1, SCHEMA + 1)}:
        raise BadRecordingFile(
            f"{name}: schema {schema!r} is newer than the {SCHEMA} this bnprobe reads. Update bnprobe."
        )
    text = metadata.get("recording", "")
    if _digest(text.encode()) != metadata.get("digest"):
        raise BadRecordingFile(
            f"{name}: recording: the text does not match its digest, so it was edited. {AGAIN}"
        )
    try:
        digests = dict(json.loads(metadata.get("digests", "{}")))
        for field, array in arrays.items():
            if _digest(array) != digests.get(field):
                raise BadRecordingFile(
                    f"{name}: {field}: the numbers do not match their digest, so they were edited. {AGAIN}"
                )
        node = json.loads(text)
        numbers = {field: stored.in_ram(array) for field, array in arrays.items()}
        decoded = _decode_fields(cls, _renamed(node) if schema == "1" else node, "recording", numbers)
    except BadRecordingFile:
        raise
    except (BnprobeError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadRecordingFile(f"{name}: {reason.rstrip('.')}. {AGAIN}") from error
    return typing.cast(_Data, decoded)


def _renamed(node: Any) -> Any:
    """A file of schema 1 in the names of today."""
    if isinstance(node, dict):
        return {RENAMED_SINCE_1.get(name, name): _renamed(value) for name, value in node.items()}
    return [_renamed(item) for item in node] if isinstance(node, list) else node


def _digest(content: bytes | np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(typing.cast(bytes, content)).hexdigest()[:32]


def _encode(value: Any, at: str, arrays: dict[str, np.ndarray[Any, Any]], counts: bool = False) -> Any:
    """A JSON value; arrays go to `arrays` under their path, which stands in their place."""
    if isinstance(value, np.ndarray):
        arrays[at] = stored.to_store(value, counts)
        return {"array": at}
    if dataclasses.is_dataclass(value):
        return {
            f.name: _encode(getattr(value, f.name), f"{at}/{f.name}", arrays, "counts" in f.metadata)
            for f in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_encode(item, f"{at}/{i}", arrays) for i, item in enumerate(value)]
    return value


@cache
def _decoder(hint: Any) -> Decoder:
    """What makes a value of this type of a node: chosen once per type, since a file holds thousands of values.

    It raises ValueError, which names the field, for a node that does not fit.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _optional(_decoder(next(option for option in inner if option is not type(None))))
    if origin is np.ndarray:
        return _numbers
    if dataclasses.is_dataclass(hint):
        return partial(_decode_fields, typing.cast(type, hint))
    if origin is tuple:
        most = MOST_RECORDS if dataclasses.is_dataclass(inner[0]) else MOST_ITEMS
        return partial(_decode_items, _decoder(inner[0]), most)
    return partial(_scalar, hint)


def _optional(decode: Decoder) -> Decoder:
    """The same, and None of null: unions are of a type and None only."""
    return lambda node, at, arrays: None if node is None else decode(node, at, arrays)


def _numbers(node: Any, at: str, arrays: Arrays) -> np.ndarray[Any, Any]:
    if not isinstance(node, dict) or node.get("array") not in arrays:
        raise ValueError(f"{at}: its numbers are missing.")
    return arrays[node["array"]]


def _decode_items(decode: Decoder, most: int, node: Any, at: str, arrays: Arrays) -> tuple[Any, ...]:
    if not isinstance(node, list):
        raise ValueError(f"{at}: expected a list, found {type(node).__name__}.")
    if len(node) > most:
        raise ValueError(f"{at}: a list of {len(node):,}, and {most:,} are the most that are read.")
    return tuple(decode(item, f"{at}/{i}", arrays) for i, item in enumerate(node))


def _decode_fields(cls: type, node: Any, at: str, arrays: Arrays) -> Any:
    if not isinstance(node, dict):
        raise ValueError(f"{at}: expected fields, found {type(node).__name__}.")
    needed, decoders = _plan(cls)
    odd = sorted((needed - node.keys()) | (node.keys() - decoders.keys()))
    if odd:
        raise ValueError(f"{at}: fields missing or unknown: {', '.join(odd)}.")
    return cls(**{name: decoders[name](value, f"{at}/{name}", arrays) for name, value in node.items()})


@cache
def _plan(cls: type) -> tuple[frozenset[str], dict[str, Decoder]]:
    """The fields that a class needs, and how each is made. One with a default came later than the first files, and may be
    missing."""
    needed = frozenset(f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING)
    return needed, {name: _decoder(hint) for name, hint in typing.get_type_hints(cls).items()}


def _scalar(hint: type, node: Any, at: str, _: Arrays) -> Any:
    if hint is float and isinstance(node, int) and not isinstance(node, bool):
        return float(node)
    if not isinstance(node, hint) or (hint is int and isinstance(node, bool)):
        raise ValueError(f"{at}: expected {hint.__name__}, found {node!r}.")
    if isinstance(node, str):
        node.encode()  # half of a character, which JSON lets in, cannot be written again
    return node
