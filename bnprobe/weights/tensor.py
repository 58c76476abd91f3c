"""A tensor of a checkpoint: its type and shape, known at once, and its numbers, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]

MOST_DIMENSIONS = 32
"""Of a tensor that is read, as of the arrays of numpy before its version 2."""

BLOCK = 2**20
"""Numbers that are read at once where a tensor is gone through: 8 MB as float64."""


def wide(numbers: Array) -> Array:
    """A copy as float64; some NaNs of other types raise a flag there."""
    with np.errstate(invalid="ignore"):
        return np.array(numbers, dtype=np.float64)


class Tensor:
    """What both kinds have: those that lie in a file (`Stored`) and those in RAM (`with_torch.ram.InRam`).

    Attributes:
        dtype: The type of its numbers, as torch calls it: "float32".
        shape: Its sizes; () for one that is `foreign`.
        dim: How many sizes it has.
        numel: How many numbers.
        itemsize: Bytes of one of them.
        foreign: What it is instead of a plain block of numbers, "a sparse tensor"; empty for those that are one.
        is_number: Whether it holds real numbers that can be read.
        storage: What its numbers lie in, equal for views of one storage, and how many bytes that has.
    """

    __slots__ = ("dim", "dtype", "foreign", "is_number", "itemsize", "numel", "shape", "storage")

    dtype: str
    shape: tuple[int, ...]
    dim: int
    numel: int
    itemsize: int
    foreign: str
    is_number: bool
    storage: tuple[object, int]

    def array(self) -> Array:
        """Its numbers in its shape; types that numpy lacks as float32, which holds each of theirs."""
        raise NotImplementedError

    def rows(self, begin: int, end: int) -> Array:
        """A part of `array`, by its first dimension."""
        raise NotImplementedError

    @property
    def far(self) -> bool:
        """Whether its numbers are those of a remote file, and were not fetched."""
        return False

    @property
    def kind(self) -> str:
        """What a tensor that is no number is, in words."""
        return self.foreign or f"of type {self.dtype}"

    @property
    def held(self) -> bool:
        """Whether there are bytes for every number that it declares: an expanded tensor has fewer."""
        return self.numel * self.itemsize <= self.storage[1]

    def float64(self) -> Array:
        """Its numbers one after the other, shape (n,): a copy."""
        return wide(self.array()).reshape(-1)

    def blocks(self) -> Iterator[Array]:
        """Its rows, (some, numbers of a row), so many at a time that no large tensor is in RAM as a whole."""
        n = self.shape[0]
        step = max(1, BLOCK * n // max(1, self.numel))
        for begin in range(0, n, step):
            part = self.rows(begin, min(begin + step, n))
            yield part.reshape(len(part), -1)
