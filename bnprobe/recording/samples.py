"""The samples that exemplars name: their numbers, files or texts, and labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.recording.layer_record import LayerRecord
from bnprobe.stats.exemplars import NOBODY
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class SampleTable:
    """The samples that the exemplars of a recording are, in an order that says nothing of the order in which they came.

    For S samples: `numbers` (S,) are their running numbers in the part of the run that `parts` names; of files, a checksum
    of the path and no part, so that a file is one sample wherever it was seen. `captions` are paths or texts, empty where
    none was given, and `is_path` (S,) is 1 for paths. `labels` (S,) are NaN where there is none; `classes` their names, if
    those are known.
    """

    numbers: Array
    parts: tuple[str, ...]
    captions: tuple[str, ...]
    is_path: Array
    labels: Array
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"SampleTable({len(self):,} sample{'s' * (len(self) != 1)})"

    def __len__(self) -> int:
        return len(self.parts)

    def __post_init__(self) -> None:
        size = (len(self),)
        if (
            len(self.captions) != len(self)
            or not self.numbers.shape == self.is_path.shape == self.labels.shape == size
        ):
            raise BnprobeError("A table of samples needs a number, part, caption and label for each of them.")
        if not np.isin(self.is_path, (0.0, 1.0)).all() or not _are_whole(self.numbers).all():
            raise BnprobeError(
                "A table of samples holds running numbers, and says of each caption if it is a path."
            )
        if not (np.isnan(self.labels) | _are_whole(self.labels)).all():
            raise BnprobeError("Labels of samples are whole numbers that are not negative.")
        keys = self.keys
        if sorted(set(keys)) != keys:
            raise BnprobeError("A table of samples names each of them once, in order.")

    @property
    def keys(self) -> list[tuple[float, str, str]]:
        """What tells samples apart, and orders them."""
        paths = (caption if path else "" for caption, path in zip(self.captions, self.is_path, strict=True))
        return list(zip(self.numbers.tolist(), self.parts, paths, strict=True))

    def take(self, which: Array) -> Self:
        """Some of the samples, by their places in the table, in rising order."""
        at = which.astype(np.int64).tolist()
        return replace(
            self,
            numbers=self.numbers[at],
            parts=tuple(self.parts[i] for i in at),
            captions=tuple(self.captions[i] for i in at),
            is_path=self.is_path[at],
            labels=self.labels[at],
        )

    def merge(self, other: Self) -> tuple[Self, Array, Array]:
        """The samples of both, and the places there of the samples of each."""
        mine, theirs = self.keys, other.keys
        at = {key: i for i, key in enumerate(sorted({*mine, *theirs}))}
        places = [np.array([at[key] for key in keys], dtype=np.float64) for keys in (mine, theirs)]
        captions, is_path, labels = [""] * len(at), np.zeros(len(at)), np.full(len(at), np.nan)
        for table, keys in ((self, mine), (other, theirs)):
            for i, key in enumerate(keys):
                j = at[key]
                captions[j], is_path[j] = max(captions[j], table.captions[i]), table.is_path[i]
                labels[j] = np.fmax(labels[j], table.labels[i])
        alike = self.classes == other.classes
        table = type(self)(
            numbers=np.array([number for number, _, _ in at], dtype=np.float64),
            parts=tuple(part for _, part, _ in at),
            captions=tuple(captions),
            is_path=is_path,
            # numbers of classes that have other names mean something else in each part
            labels=labels if alike else np.full(len(at), np.nan),
            classes=self.classes if alike else (),
        )
        return table, places[0], places[1]


Layers = tuple[LayerRecord, ...]


def numbered(layers: Layers, new: Callable[[Array], Array]) -> Layers:
    """The same records with other numbers of the samples of their exemplars: a function of an array of numbers."""
    return tuple(
        record if record.exemplars is None else replace(record, exemplars=record.exemplars.renumbered(new))
        for record in layers
    )


def in_table(layers: Layers, used: Array) -> Layers:
    """The same records with samples by their places among those that are `used`, in rising order."""
    return numbered(layers, lambda sample: np.searchsorted(used, sample).astype(np.float64))


def without_unused(
    layers: Iterable[LayerRecord], table: SampleTable | None
) -> tuple[Layers, SampleTable | None]:
    """The same without the samples of a table that no exemplar is; no table without exemplars."""
    layers = tuple(layers)
    if table is None or all(record.exemplars is None for record in layers):
        return layers, None
    used = used_by(layers)
    return in_table(layers, used), table.take(used)


def used_by(layers: Sequence[LayerRecord]) -> Array:
    """The numbers of the samples that some exemplar is, each once, in rising order."""
    kept = [record.exemplars.sample for record in layers if record.exemplars is not None]
    numbers = np.unique(np.concatenate([np.unique(sample) for sample in kept])) if kept else np.zeros(0)
    used: Array = numbers[numbers != NOBODY]
    return used


def common_samples(
    mine: Layers, my_table: SampleTable | None, theirs: Layers, their_table: SampleTable | None
) -> tuple[Layers, Layers, SampleTable | None]:
    """The records of two parts with samples numbered by one table."""
    if my_table is None or their_table is None:
        return mine, theirs, my_table or their_table
    table, *places = my_table.merge(their_table)
    mine, theirs = (
        numbered(layers, lambda sample, there=there: there[sample.astype(np.int64)])  # type: ignore[misc]
        for layers, there in zip((mine, theirs), places, strict=True)
    )
    return mine, theirs, table


def check_samples(layers: Layers, table: SampleTable | None) -> None:
    """Raise unless each exemplar is a sample of the table."""
    used = used_by(layers)
    if used.size and (table is None or used[-1] >= len(table)):
        raise BnprobeError("Exemplars of a recording name samples that it does not hold.")


def _are_whole(numbers: Array) -> Array:
    whole: Array = (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**53)
    return whole
