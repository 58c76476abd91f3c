"""How numbers lie in a file: float64, but counts in as few bytes as hold them, since histograms of counts fill most of it.

They are float64 in RAM, and come back to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from bnprobe.files.header import Entry
from bnprobe.stats.moments import Array

TYPES = {"F64": "<f8", "U8": "|u1", "U16": "<u2", "U32": "<u4"}
"""Types in files, by the format's name and by numpy's."""

NAMES = {numpy: name for name, numpy in TYPES.items()}

WIDEST = 8
"""Bytes of the largest of them."""

PIECE = 2**18
"""Bytes that are read at a time, or one array of more: thousands of small arrays take longer one by one, and fresh pages for
all of a file longer than to read it."""

COUNTS = ("|u1", "<u2", "<u4")
"""Types of counts, the smallest first."""


def to_store(numbers: Array, counts: bool = False) -> np.ndarray[Any, Any]:
    """The same numbers as they lie in a file; those of `counts` only where they are whole and not too large."""
    stored = np.ascontiguousarray(numbers, dtype=TYPES["F64"])
    if not counts or not stored.size or not stored.min() >= 0:  # not NaN either
        return stored
    most = stored.max()
    for dtype in COUNTS:
        if most <= np.iinfo(dtype).max:
            narrow = stored.astype(dtype)
            return narrow if np.array_equal(narrow, stored) else stored
    return stored


def name_of(stored: np.ndarray[Any, Any]) -> str:
    """The format's name of the type of numbers that `to_store` made."""
    return NAMES[stored.dtype.str]


def read(file: BinaryIO, entries: Mapping[str, Entry]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """All arrays of an opened file, as they lie in it one after the other.

    Raises ValueError, by the name of the array, for another type than those of recordings, or a file that was cut meanwhile.
    """
    for piece in _pieces(sorted(entries.items(), key=lambda item: item[1].start)):
        start = piece[0][1].start
        file.seek(start)
        content = file.read(sum(entry.n_bytes for _, entry in piece))
        for name, entry in piece:
            if entry.dtype not in TYPES:
                raise ValueError(f"{name}: expected float64, found {entry.dtype}")
            dtype = np.dtype(TYPES[entry.dtype])
            numbers = np.frombuffer(content, dtype, entry.n_bytes // dtype.itemsize, entry.start - start)
            yield name, numbers.reshape(entry.shape)


def _pieces(entries: list[tuple[str, Entry]]) -> Iterator[list[tuple[str, Entry]]]:
    """Neighbors that are read together."""
    piece: list[tuple[str, Entry]] = []
    n_bytes = 0
    for one in entries:
        piece.append(one)
        n_bytes += one[1].n_bytes
        if n_bytes >= PIECE:
            yield piece
            piece, n_bytes = [], 0
    if piece:
        yield piece


def in_ram(stored: np.ndarray[Any, Any]) -> Array:
    """The numbers as float64, which nobody can change."""
    numbers: Array = stored.astype(np.float64, copy=False)
    numbers.flags.writeable = False
    return numbers
