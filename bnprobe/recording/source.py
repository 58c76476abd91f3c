"""Which samples a recording holds: what each part of a whole saw, and its place among the parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from bnprobe.recording.layer_record import LayerRecord

MOST_NAMED = 8
"""Missing parts that are named one by one."""


@dataclass(frozen=True)
class Source:
    """One part of a whole, such as what one process or one shard of the data gave.

    `samples` is a digest of what reached the norms: the same samples give the same digest whenever they are recorded,
    others another one. It is empty until parts are merged. `name` is what messages call the part. `kind` says what
    parts are ("rank", "shard"), `index` which of `of` parts this is, from 0; empty and None where nobody counted.
    """

    samples: str = ""
    name: str = ""
    kind: str = ""
    index: int | None = None
    of: int | None = None

    @classmethod
    def rank(cls, index: int, of: int) -> Self:
        """What process `index` of `of` recorded."""
        return cls(name=f"rank {index}", kind="rank", index=index, of=of)


def digest(layers: Iterable[LayerRecord]) -> str:
    """What reached the norms, in 32 letters: how many values, their means and their squares, at every site.

    Times, notes and settings are no part of it, so that a part which was recorded again is known again.
    """
    seen = hashlib.sha256()
    for record in sorted(layers, key=lambda record: (record.layer, record.call)):
        seen.update(f"{record.site}/{record.n_images}/".encode("utf-8", "surrogatepass"))
        for sums in (record.pre.n, record.pre.mean, record.pre.m2):
            seen.update(sums.tobytes())
    return seen.hexdigest()[:32]


def are_ranks(mine: Sequence[Source], theirs: Sequence[Source]) -> bool:
    """Whether both sides are parts that processes of one group recorded."""
    return bool(mine and theirs) and all(source.kind == "rank" for source in (*mine, *theirs))


def same_samples(mine: Iterable[Source], theirs: Iterable[Source]) -> tuple[Source, Source] | None:
    """A part of each side that hold the same samples, if there are such."""
    known = {source.samples: source for source in mine if source.samples}
    return next(((known[other.samples], other) for other in theirs if other.samples in known), None)


def missing(sources: Iterable[Source]) -> str:
    """Which parts of the whole are not there, in words; empty where all are, or nobody counted."""
    return " ".join(_missing(list(sources)))


def _missing(sources: list[Source]) -> Iterator[str]:
    wholes: dict[tuple[str, int], set[int]] = {}
    for source in sources:
        if source.of and source.index is not None and 0 <= source.index < source.of:
            wholes.setdefault((source.kind, source.of), set()).add(source.index)
    for (kind, of), there in wholes.items():
        n_gone = of - len(there)
        if n_gone:  # a file may say that there are billions, so they are not all listed first
            gone = islice((index for index in range(of) if index not in there), MOST_NAMED)
            more = f" and {n_gone - MOST_NAMED:,} more" if n_gone > MOST_NAMED else ""
            verb = "is" if n_gone == 1 else "are"
            yield f"Of {of:,} {kind}s {n_gone:,} {verb} missing: {', '.join(map(str, gone))}{more}, counted from 0."


def named(sources: Iterable[Source], name: str) -> tuple[Source, ...]:
    """The same, called otherwise."""
    return tuple(replace(source, name=name) for source in sources)
