"""What of the model is no norm and yet may differ between two recordings: its tensors, by checksum, and its dropout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array

SUMMED_ON_DEVICE = 2.0**33
"""From here on a checksum was made by sums on a device, below it is the CRC of the bytes; two kinds tell nothing of each
other."""

UNLIKE = 1e-4
"""Relative difference of two sizes of the same numbers, summed elsewhere in float32."""

UNLIKE_TYPES = 1e-2
"""The same where the numbers are stored in another precision."""


@dataclass(frozen=True)
class TensorTable:
    """Every tensor of floats of a model or file, in its order, the norms' own included; a column per fact.

    `checksums` are NaN where nothing could be read; `rms` is the root mean square of a tensor's numbers.
    """

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    checksums: Array | None = None
    rms: Array | None = None

    def __post_init__(self) -> None:
        lengths = {
            len(self.names),
            len(self.types),
            len(self.shapes),
            _length(self.checksums),
            _length(self.rms),
        }
        if len(lengths) > 1 or len(set(self.names)) != len(self.names):
            raise BnprobeError(
                f"A table of tensors needs one entry per name in every column, got {sorted(lengths)}."
            )

    def __repr__(self) -> str:
        return f"TensorTable({len(self.names):,} tensors)"

    def beside(self, other: TensorTable) -> TensorTable:
        """The tensors of two parts of one model; of one that both have, such as a tied matrix, the first."""
        known = set(self.names)
        new = [i for i, name in enumerate(other.names) if name not in known]
        names, types, shapes = (
            (*mine, *(theirs[i] for i in new))
            for mine, theirs in (
                (self.names, other.names),
                (self.types, other.types),
                (self.shapes, other.shapes),
            )
        )
        checksums, rms = (
            np.concatenate([_numbers(mine), _numbers(theirs)[new]])
            for mine, theirs in ((self.checksums, other.checksums), (self.rms, other.rms))
        )
        return TensorTable(names, types, shapes, checksums, rms)

    def size(self, i: int) -> float:
        """Root mean square of tensor i; NaN where it is not known."""
        return float("nan") if self.rms is None else float(self.rms[i])

    def same(self, i: int, other: TensorTable, j: int) -> bool:
        """Whether tensor i here and tensor j there hold the same numbers, as far as can be told."""
        if self.shapes[i] != other.shapes[j]:
            return False
        mine, theirs = self._checksum(i), other._checksum(j)
        alike = self.types[i] == other.types[j]
        if alike and (mine < SUMMED_ON_DEVICE) == (theirs < SUMMED_ON_DEVICE):
            return bool(mine == theirs or np.isnan(mine) or np.isnan(theirs))
        a, b = self.size(i), other.size(j)
        return not abs(a - b) > (UNLIKE if alike else UNLIKE_TYPES) * max(a, b)

    def _checksum(self, i: int) -> float:
        return float("nan") if self.checksums is None else float(self.checksums[i])


def differing(mine: TensorTable | None, theirs: TensorTable | None) -> list[str]:
    """Names that both tables have, of tensors that do not hold the same numbers."""
    if mine is None or theirs is None:
        return []
    there = {name: i for i, name in enumerate(theirs.names)}
    return [
        name for i, name in enumerate(mine.names) if name in there and not mine.same(i, theirs, there[name])
    ]


@dataclass(frozen=True)
class Dropout:
    """A module that drops values in train mode: its path, the share `p` that it drops, and the next norm (or "").

    `before` goes by the order of the module tree, which is mostly that of execution.
    """

    path: str
    p: float
    before: str


def _numbers(column: Array | None) -> Array:
    return np.zeros(0) if column is None else column


def _length(column: Array | None) -> int:
    return 0 if column is None else len(column)
