"""Names of one network in two wrappers, or in a GGUF file and another: B gets the names that A has.

In two wrappers "model." or "backbone." before every path of one side is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from bnprobe.comparison.gguf_names import is_named_so, names_elsewhere
from bnprobe.recording import LayerRecord, Recording

Rename = Callable[[str], str]


def under_names_of(a: Recording, b: Recording) -> tuple[Recording, str]:
    """B with the names of A where a prefix tells them apart, or the format of the file, and that in words; else B as it is,
    and "".

    Other names are looked for only where not one norm has the same name and width on both sides.
    """
    mine = {(record.layer, record.n_channels) for record in a.layers}
    theirs = {(record.layer, record.n_channels) for record in b.layers}
    if mine & theirs:
        return b, ""
    side = gguf_side(a, b)
    if side:
        return _with_names_of_other_format(a, b, side)
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


def gguf_side(a: Recording, b: Recording) -> str:
    """The side, "A" or "B", that alone has the names of a GGUF file; "" where none or both have."""
    mine, theirs = (is_named_so(record.layer for record in side.layers) for side in (a, b))
    return "" if mine == theirs else "A" if mine else "B"


def _with_names_of_other_format(a: Recording, b: Recording, side: str) -> tuple[Recording, str]:
    gguf, other = (a, b) if side == "A" else (b, a)
    names = names_elsewhere(_modules(gguf), _modules(other))
    if not names:
        return b, ""
    names = names if side == "B" else {theirs: mine for mine, theirs in names.items()}
    return _renamed(b, lambda name: _under(names, name)), (
        f"{side} has the names of a GGUF file: “{next(iter(names))}” of B is compared with "
        f"“{next(iter(names.values()))}” of A, and {len(names) - 1:,} more modules in the same way."
    )


def _modules(recording: Recording) -> dict[str, None]:
    """Paths of the norms, and of the other modules that have tensors."""
    tensors = () if recording.tensors is None else recording.tensors.names
    layers = [record.layer for record in recording.layers]
    return dict.fromkeys([*layers, *(name.rpartition(".")[0] for name in tensors)])


def _under(names: Mapping[str, str], name: str) -> str:
    """The name of a module, or of a tensor in it."""
    module, dot, leaf = name.rpartition(".")
    return names.get(name) or (f"{names[module]}{dot}{leaf}" if module in names else name)


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
