"""The layout of GGUF files, as llama.cpp writes them: facts in pairs, then where each tensor lies and how it is packed.

Nothing is believed that the size of the file does not bear out. Lists, such as those of a tokenizer, are passed over.
"""

from __future__ import annotations

import math
import os
import struct
from typing import BinaryIO, NamedTuple

from bnprobe.files.limits import TooMuch

BEGINS = b"GGUF"

MOST_TENSORS = 2**18
MOST_FACTS = 2**16
LONGEST_NAME = 2**16
MOST_TEXTS = 2**21
MOST_DIMENSIONS = 4
"""More of each than any file of a model has."""

SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")))
"""Of a fact, by the format's number of its type; "" for strings and lists."""

STRING, LIST = 8, 9

TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    28: ("F64", 1, 8),
    30: ("BF16", 1, 2),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
}
"""Of tensors, by the format's number: the name of a type, numbers in a block, and bytes of a block."""

Fact = str | int | float | bool


class Packed(NamedTuple):
    """One tensor: its type by the format's name, its shape, outermost dimension first, and its bytes in the file; none where
    the type is not known."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


class Gguf(NamedTuple):
    """What a file says of the model, without lists, and its tensors."""

    facts: dict[str, Fact]
    entries: dict[str, Packed]


def read_gguf(file: BinaryIO) -> Gguf:
    """The facts and the tensors of an opened file. Raises ValueError, in words, where it does not fit itself."""
    size = file.seek(0, os.SEEK_END)
    file.seek(len(BEGINS))
    reader = _Reader(file, size)
    version = reader.one("I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}, and 2 and 3 are read")
    n_tensors, n_facts = reader.one("Q"), reader.one("Q")
    if n_tensors > MOST_TENSORS or n_facts > MOST_FACTS:
        raise TooMuch(f"it declares {n_tensors:,} tensors and {n_facts:,} facts")
    facts: dict[str, Fact] = {}
    entries: dict[str, Packed] = {}
    for _ in range(n_facts):
        name, value = reader.text(), reader.fact(reader.one("I"))
        if value is not None:
            facts[name] = value
    declared = [(reader.text(), reader.shape(), reader.one("I"), reader.one("Q")) for _ in range(n_tensors)]
    step = facts.get("general.alignment", 32)
    if not isinstance(step, int) or not 0 < step <= 2**16:
        raise ValueError(f"its alignment is {step!r:.40}")
    begin = -(-file.tell() // step) * step
    for name, shape, kind, at in declared:
        if name in entries:
            raise ValueError(f"it holds {name:.80} twice")
        entries[name] = _entry(name, shape, kind, begin + at, size)
    return Gguf(facts, entries)


def _entry(name: str, shape: tuple[int, ...], kind: int, start: int, size: int) -> Packed:
    if kind not in TYPES:
        return Packed(f"number {kind}", shape, start, 0)
    dtype, per_block, n_bytes = TYPES[kind]
    if shape and shape[-1] % per_block:
        raise ValueError(f"rows of {name:.80} are no whole blocks of {per_block}")
    whole = math.prod(shape) // per_block * n_bytes
    if start + whole > size:
        raise ValueError(f"{name:.80} ends at byte {start + whole:,}, and the file has {size:,}")
    return Packed(dtype, shape, start, whole)


class _Reader:
    """Numbers and texts one after another, none of them beyond the end of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._n_passed = file, size, 0

    def one(self, code: str) -> int:
        """A number."""
        held = self._file.read(struct.calcsize(code))
        if len(held) < struct.calcsize(code):
            raise ValueError("it ends within what it says of itself")
        (value,) = struct.unpack(f"<{code}", held)
        return value  # type: ignore[no-any-return]

    def text(self) -> str:
        """A name or a value."""
        length = self.one("Q")
        if length > LONGEST_NAME:
            self._skip(length)
            return ""
        held = self._file.read(length)
        if len(held) < length:
            raise ValueError("it ends within what it says of itself")
        return held.decode("utf-8", "replace")

    def shape(self) -> tuple[int, ...]:
        """The sizes of a tensor, which the format lists from the innermost."""
        n = self.one("I")
        if n > MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {n:,} dimensions")
        return tuple(self.one("Q") for _ in range(n))[::-1]

    def fact(self, kind: int) -> Fact | None:
        """A value; None for a list."""
        if kind == STRING:
            return self.text()
        if kind == LIST:
            self._pass_list()
            return None
        if not SCALARS.get(kind):
            raise ValueError(f"a fact is of type {kind}")
        return self.one(SCALARS[kind])

    def _pass_list(self) -> None:
        kind, n = self.one("I"), self.one("Q")
        if n > self._size:
            raise ValueError(f"a list of {n:,} values is longer than the file")
        if kind == STRING:
            self._n_passed += n  # a step for each, and an empty one takes no room on a disk
            if self._n_passed > MOST_TEXTS:
                raise TooMuch(f"its lists hold more than {MOST_TEXTS:,} texts")
            for _ in range(n):
                self._skip(self.one("Q"))
        elif SCALARS.get(kind):
            self._skip(n * struct.calcsize(SCALARS[kind]))
        else:
            raise ValueError(f"a list holds values of type {kind}")

    def _skip(self, n: int) -> None:
        if n > self._size - self._file.tell():
            raise ValueError("it ends within what it says of itself")
        self._file.seek(n, os.SEEK_CUR)
