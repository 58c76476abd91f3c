"""Names of one network in two wrappers: "model." or "backbone." before every path of one side is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from bnprobe.recording import LayerRecord, Recording

Rename = Callable[[str], str]


def under_names_of(a: Recording, b: Recording) -> tuple[Recording, str]:
    """B with the names of A where all that tells them apart is a prefix, and that in words; else B as it is, and "".

    A prefix is looked for only where not one norm has the same name and width on both sides.
    """
    mine = {(record.layer, record.n_channels) for record in a.layers}
    theirs = {(record.layer, record.n_channels) for record in b.layers}
    if mine & theirs:
        return b, ""
    longer_b, longer_a = _prefixes(theirs, mine), _prefixes(mine, theirs)
    prefix, n = max([*longer_b.items(), *longer_a.items()], key=lambda item: item[1], default=("", 0))
    if not n:
        return b, ""
    if longer_b.get(prefix) == n:
        return _renamed(b, lambda name: name.removeprefix(prefix)), (
            f"Names of B begin with “{prefix}”, which was left out to compare them with those of A."
        )
    return _renamed(b, lambda name: f"{prefix}{name}"), (
        f"Names of A begin with “{prefix}”, which was put before those of B to compare them."
    )


def _prefixes(long: set[tuple[str, int]], short: set[tuple[str, int]]) -> Counter[str]:
    """What stands before names of one side that end as one of the other, and at how many norms."""
    found: Counter[str] = Counter()
    for name, width in long:
        for i in (i for i, letter in enumerate(name) if letter == "."):
            found[name[: i + 1]] += (name[i + 1 :], width) in short
    return +found


def _renamed(b: Recording, rename: Rename) -> Recording:
    tensors = b.tensors and replace(b.tensors, names=_each(b.tensors.names, rename))
    return replace(
        b,
        layers=tuple(_layer(record, rename) for record in b.layers),
        never_called=_each(b.never_called, rename),
        folded=_each(b.folded, rename),
        tensors=tensors,
        dropouts=tuple(
            replace(one, path=rename(one.path), before=one.before and rename(one.before))
            for one in b.dropouts
        ),
    )


def _layer(record: LayerRecord, rename: Rename) -> LayerRecord:
    around = record.neighbours
    if around is not None and around.producer:
        around = replace(around, producer=rename(around.producer))
    return replace(record, layer=rename(record.layer), neighbours=around)


def _each(names: tuple[str, ...], rename: Rename) -> tuple[str, ...]:
    return tuple(map(rename, names))
