"""The layout of safetensors files: the length of a header, the header in JSON, and the numbers after it.

Read here, because the library maps files, and where another process cuts a mapped file, the system ends this one.
Nothing is believed that the size of the file does not bear out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple, NoReturn

from bnprobe.files.limits import TooMuch

LARGEST = 100_000_000
"""Bytes of a header, as in the library."""

MOST_TENSORS = 2**18
"""Tensors of one file: ten times what the largest models have in a shard."""

LONGEST_NAME = 2**17
"""Characters of a name: a thousand times what a name has."""

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Of one number, by the format's name of its type."""


_KEYS = frozenset(("dtype", "shape", "data_offsets"))


class Header(NamedTuple):
    """What a file says of itself, and where its tensors lie."""

    metadata: dict[str, str]
    entries: dict[str, Entry]


class Entry(NamedTuple):
    """One tensor: its type by the format's name, its shape, and its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


def read_header(file: BinaryIO) -> Header:
    """The header of an opened file. Raises ValueError, in words, where it does not fit the file or itself."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST, size - 8):
        raise ValueError(f"its header would be {length:,} bytes long")
    text = file.read(length)
    if text.count(b"data_offsets") > MOST_TENSORS:
        raise TooMuch(f"it declares more than {MOST_TENSORS:,} tensors")
    try:
        held = json.loads(text.decode(), object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("its header is nested too deep") from None
    if not isinstance(held, dict):
        raise ValueError("its header is no table of tensors")
    metadata = held.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    entries = {name: _entry(name, value, 8 + length) for name, value in held.items()}
    _demand_whole(entries.values(), 8 + length, size)
    return Header(metadata, entries)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("its header has a name twice")
    return table


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"its header holds {text}")


def _entry(name: str, value: Any, begin: int) -> Entry:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"it holds a name of {len(name):,} characters")
    if not isinstance(value, dict) or value.keys() != _KEYS:
        raise ValueError("an entry of its header is no tensor")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"it declares a type {dtype!r:.40}")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2:
        raise ValueError("a shape or a place in its header is no list of whole numbers")
    start, end = offsets
    if math.prod(shape) * BITS[dtype] != 8 * (end - start):
        raise ValueError("a tensor does not have the size that its shape declares")
    return Entry(dtype, tuple(shape), begin + start, end - start)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def _demand_whole(entries: Iterable[Entry], begin: int, end: int) -> None:
    """Tensors lie one behind another, without a gap, up to the end of the file."""
    at = begin
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.n_bytes)):
        if entry.start != at:
            raise ValueError("its tensors overlap, or leave a gap")
        at += entry.n_bytes
    if at != end:
        raise ValueError(f"its tensors end at byte {at:,} of {end:,}")
