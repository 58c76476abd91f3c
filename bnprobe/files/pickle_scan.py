"""Every operation of a pickle, looked at before any of them is carried out: what reading it could take, and what it names.

Nothing is made here. What each operation would put on the reader's stack is followed as a number, its weight: how many
values it comes to when shared ones count each time they are met. Hashing a key, or making something out of a list, takes
time in proportion to that, and thirty tuples of the same tuple twice, a line of a pickle, come to a billion.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from bnprobe.files.limits import TooMuch

LARGEST = 2**28
"""Bytes of a pickle, which holds names and sizes, and no numbers."""

MOST_OPERATIONS = 2**22
"""Operations of a pickle: a tensor takes thirty, and so a hundred thousand of them fit."""

MOST_WORK = 2**26
"""Values that are hashed or handed on, shared ones each time: a tensor comes to a hundred, and this takes 2 s at most."""

LONGEST_NAME = 256
"""Characters of the name of a class or function; messages about longer ones have taken minutes."""

IN_PLACE = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""Operations that put what lies on the stack into what lies below it."""


def demand_harmless(file: BinaryIO, n_pickles: int = 1) -> None:
    """Look at every operation of the next pickles of a file. Raises ValueError where reading them could take too long or
    too much RAM."""
    n = 0
    for _ in range(n_pickles):
        stack = _Stack()
        for operation, argument in _operations(file):
            n += 1
            if n > MOST_OPERATIONS:
                raise TooMuch(f"its pickle has more than {MOST_OPERATIONS:,} operations")
            name = operation.name
            if "PUT" in name and argument > n:  # the table of what was met grows to the largest number
                raise ValueError("its pickle numbers what it holds beyond its length")
            if name.startswith("EXT"):
                raise ValueError("its pickle names things by numbers")
            if name in ("GLOBAL", "INST"):
                demand_short(*argument.partition(" ")[::2])
            stack.follow(operation, argument)


def demand_short(module: str, name: str) -> None:
    """Raises ValueError for a name that no class or function has."""
    whole = f"{module}.{name}"
    if len(whole) > LONGEST_NAME:
        raise ValueError(f"it asks for {whole[: LONGEST_NAME // 4]}…, a name of {len(whole):,} characters")


def _operations(file: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """The operations of one pickle, up to the end of the file where it has none: its reader will say that it is cut."""
    try:
        for operation, argument, _ in pickletools.genops(cast(BinaryIO, _Bounded(file))):
            yield operation, argument
    except ValueError as error:
        if "exhausted" not in str(error):
            raise


class _Bounded:
    """A file of which no more can be asked at once than a pickle may hold."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, n: int) -> bytes:
        """As of any file."""
        return self._file.read(min(n, LARGEST))

    def readline(self) -> bytes:
        """As of any file."""
        return self._file.readline(LARGEST)


class _Weight:
    """Of one value, as far as it matters; a list grows wherever it is known."""

    __slots__ = ("n",)

    def __init__(self, n: int = 1) -> None:
        self.n = min(n, MOST_WORK + 1)


class _Stack:
    """What a pickle's reader would hold: weights, None for a mark."""

    def __init__(self) -> None:
        self._held: list[_Weight | None] = []
        self._met: dict[int, _Weight] = {}
        self._work = 0

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Change as one operation changes the reader's stack; one that finds too little there is left to the reader."""
        name = operation.name
        if "PUT" in name or name == "MEMOIZE":
            if self._held and (top := self._held[-1]) is not None:
                self._met[len(self._met) if argument is None else argument] = top
        elif "GET" in name:
            self._held.append(self._met.get(argument) or _Weight())
        elif name == "MARK":
            self._held.append(None)
        elif name == "DUP":
            self._held += self._held[-1:]
        elif name in IN_PLACE:
            whole = self._handed_on(self._taken(operation, kept=1))
            if self._held and (below := self._held[-1]) is not None:
                below.n += whole
        else:
            whole = self._taken(operation)
            if operation.stack_after:
                made = whole if "TUPLE" in name else self._handed_on(whole)
                self._held.append(_Weight(1 + made))

    def _taken(self, operation: pickletools.OpcodeInfo, kept: int = 0) -> int:
        """The weight of what an operation takes off the stack, but for the last `kept` that it puts back."""
        before, whole = operation.stack_before, 0
        if pickletools.markobject in before:
            while self._held and (top := self._held.pop()) is not None:
                whole += top.n
            before = before[: before.index(pickletools.markobject)]
        for _ in before[kept:]:
            top = self._held.pop() if self._held else None
            whole += 0 if top is None else top.n
        return whole

    def _handed_on(self, whole: int) -> int:
        self._work += whole
        if self._work > MOST_WORK:
            raise ValueError("its pickle repeats what it holds without end")
        return whole
