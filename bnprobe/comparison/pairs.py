"""Which site of one recording stands against which of the other, and what stands alone."""

from __future__ import annotations

from dataclasses import is_dataclass, replace
from typing import NamedTuple

import numpy as np

from bnprobe.measures.standard_errors import by_sample
from bnprobe.recording import LayerRecord, Recording

SUMMED = 1e-12
"""Relative difference of two lengths of the same weights, summed in float64 in another order."""


class Pair(NamedTuple):
    """One site in both recordings: the same path, the same call, as many channels."""

    a: LayerRecord
    b: LayerRecord

    @property
    def identical(self) -> bool:
        """Whether every number of both is the same to the last bit, the weights before them included.

        What else stands around a norm belongs to its neighbors.
        """
        mine, theirs = (replace(record, neighbours=None) for record in self)
        return _same(mine, theirs) and not self.filters_differ

    @property
    def filters_differ(self) -> bool:
        """Whether the weights before the norm differ, where both sides know them and mean the same ones."""
        return _filters_differ(self.a, self.b)


class Alone(NamedTuple):
    """A site that was not compared: where it is ("A" or "B"), and why it stands alone."""

    layer: str
    call: int
    n_channels: int
    side: str
    why: str


class Pairs(NamedTuple):
    """Everything common, in the order in which A reached it, and the rest of both sides."""

    common: tuple[Pair, ...]
    alone: tuple[Alone, ...]


def pairs(a: Recording, b: Recording) -> Pairs:
    """Sites by path and call. A layer whose number of channels differs is compared with nothing.

    No site counts more images than samples were given to its model.
    """
    mine = {(record.layer, record.call): record for record in by_sample(a)}
    theirs = {(record.layer, record.call): record for record in by_sample(b)}
    common = tuple(
        Pair(_with_eps_of(theirs[site], mine[site]), _with_eps_of(mine[site], theirs[site]))
        for site in mine
        if site in theirs and mine[site].n_channels == theirs[site].n_channels
    )
    matched = {(pair.a.layer, pair.a.call) for pair in common}
    alone = [
        Alone(record.layer, record.call, record.n_channels, side, _why(record, others, recording))
        for side, records, others, recording in (("A", mine, theirs, b), ("B", theirs, mine, a))
        for site, record in records.items()
        if site not in matched
    ]
    return Pairs(common, tuple(alone))


def _filters_differ(a: LayerRecord, b: LayerRecord) -> bool:
    """To the last bit where both were read alike; a file and a run add the same squares in another order."""
    if (
        a.neighbours is None
        or b.neighbours is None
        or a.neighbours.folded is None
        or b.neighbours.folded is None
    ):
        return False
    mine, theirs = a.neighbours.folded, b.neighbours.folded
    if a.neighbours.guessed == b.neighbours.guessed:
        return not _same((mine.norm, mine.bias), (theirs.norm, theirs.bias))
    if a.neighbours.producer != b.neighbours.producer:
        return False  # the guess was wrong: these are lengths of two layers of one network
    lengths = np.allclose(mine.norm, theirs.norm, rtol=SUMMED, atol=0, equal_nan=True)
    return not (lengths and _same(mine.bias, theirs.bias))


def _with_eps_of(other: LayerRecord, record: LayerRecord) -> LayerRecord:
    """A file of weights holds no eps: what was taken for it must make no difference to a side that knows it."""
    return replace(record, eps=other.eps) if record.eps_assumed and not other.eps_assumed else record


def _why(record: LayerRecord, others: dict[tuple[str, int], LayerRecord], recording: Recording) -> str:
    other = others.get((record.layer, record.call))
    if other is not None:
        return f"{record.n_channels} channels here, {other.n_channels} on the other side"
    if record.layer in recording.never_called:
        return "not reached on the other side"
    if any(layer == record.layer for layer, _ in others):
        return "called fewer times on the other side"
    return "not there on the other side"


def _same(mine: object, theirs: object) -> bool:
    """Whether two records hold the same numbers; NaN is the same as NaN."""
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        return bool(np.array_equal(mine, theirs, equal_nan=True))
    if type(mine) is not type(theirs):
        return False
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))
    if is_dataclass(mine):
        return all(_same(value, vars(theirs)[name]) for name, value in vars(mine).items())
    return bool(mine == theirs or (mine != mine and theirs != theirs))
