"""Vectors of B that A holds elsewhere: under another norm's name, or in other channels of the same norm.

No training writes the numbers of one norm into another, or the same numbers in another order: converters, renamed keys,
pruning and reordering do. So values are compared to the last bit, and vectors that do not vary say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bnprobe.comparison.stored import VECTORS
from bnprobe.recording import LayerRecord, Recording, TensorTable
from bnprobe.stats.moments import Array

COLUMNS = ("layer", "source", "how", "vectors", "n_channels", "n_channels_a", "along")
"""Columns of the table: a row per norm of B. `source` is the norm of A that its `vectors` are of, `how` is "moved" (from
another norm), "reordered" or "picked" (some channels of A's). Vectors that have other channels than the rest are apart
from it: "gamma, beta | running_mean". `along` says whether weights beside the norm went the same way: "yes", "no", or
"unknown" where none are known."""

FEWEST = 4
"""Different numbers in a vector, and half as many as it has channels, for their order to say something."""

DIGITS = 9
"""Of filter lengths, which are summed in another order where channels have another one."""


def misplaced(a: Recording, b: Recording) -> pd.DataFrame:
    """A row per norm of B that holds what A holds elsewhere."""
    mine = {record.layer: record for record in a.layers if record.call == 0}
    theirs = {record.layer: record for record in b.layers if record.call == 0}
    owners = _owners(mine)
    blocks = _tensors_moved(a.tensors, b.tensors)
    rows = []
    for layer, record in theirs.items():
        own, n = mine.get(layer), record.n_channels
        if own is not None and own.n_channels == n and not _changed(own, record):
            continue
        source, vectors = _of_another(record, owners, own)
        if source:
            rows.append((layer, source, "moved", ", ".join(vectors), n, n, blocks))
        elif own is not None and _in_other_channels(own, record):
            how = "reordered" if own.n_channels == n else "picked"
            along = _filters_along(own, record)
            rows.append((layer, layer, how, _together(own, record), n, own.n_channels, along))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _vectors(record: LayerRecord) -> dict[str, Array]:
    return {name: vector for name in VECTORS if (vector := getattr(record, name)) is not None}


def _varies(vector: Array) -> bool:
    different = len(np.unique(vector))
    return bool(np.isfinite(vector).all() and different >= FEWEST and 2 * different >= len(vector))


def _changed(own: LayerRecord, record: LayerRecord) -> bool:
    before = _vectors(own)
    return any(
        name in before and not np.array_equal(before[name], vector, equal_nan=True)
        for name, vector in _vectors(record).items()
    )


def _owners(records: Mapping[str, LayerRecord]) -> dict[tuple[str, bytes], str]:
    """The norm that holds each vector; none where several hold the same."""
    held = Counter((name, vector.tobytes()) for record in records.values() for name, vector in _items(record))
    return {
        (name, vector.tobytes()): layer
        for layer, record in records.items()
        for name, vector in _items(record)
        if held[name, vector.tobytes()] == 1
    }


def _items(record: LayerRecord) -> Iterator[tuple[str, Array]]:
    return ((name, vector) for name, vector in _vectors(record).items() if _varies(vector))


def _of_another(
    record: LayerRecord, owners: Mapping[tuple[str, bytes], str], own: LayerRecord | None
) -> tuple[str, tuple[str, ...]]:
    """The norm of A that most of the changed vectors are of, and which they are."""
    from_: dict[str, list[str]] = {}
    for name, vector in _items(record):
        owner = owners.get((name, vector.tobytes()), "")
        if owner not in ("", record.layer) and own is not None:
            from_.setdefault(owner, []).append(name)
    source = max(from_, key=lambda owner: len(from_[owner]), default="")
    return source, tuple(from_.get(source, ()))


def _in_other_channels(own: LayerRecord, record: LayerRecord) -> bool:
    """Whether there is a vector whose numbers are all among A's, in other channels."""
    before = _vectors(own)
    return any(
        name in before
        and len(vector) <= len(before[name])
        and not np.array_equal(vector, before[name])
        and _rows(vector) <= _rows(before[name])
        for name, vector in _items(record)
    )


def _together(own: LayerRecord, record: LayerRecord) -> str:
    """The vectors that vary and hold numbers of A, in groups that have the same channels of it."""
    before = _vectors(own)
    groups: list[list[str]] = []
    for name, vector in _items(record):
        if name not in before or not _rows(vector) <= _rows(before[name]):
            continue
        for group in groups:
            both = [[side[one] for one in (*group, name)] for side in (_vectors(record), before)]
            if _rows(*both[0]) <= _rows(*both[1]):
                group.append(name)
                break
        else:
            groups.append([name])
    return " | ".join(", ".join(group) for group in groups)


def _rows(*vectors: Array) -> Counter[tuple[float, ...]]:
    """Each channel as the numbers that it has."""
    return Counter(map(tuple, np.column_stack(vectors).tolist()))


def _filters_along(own: LayerRecord, record: LayerRecord) -> str:
    """Whether the weights before the norm have the channels that its vectors have."""
    folded = [None if one.neighbours is None else one.neighbours.folded for one in (own, record)]
    before, after = (None if one is None else one.norm for one in folded)
    if before is None or after is None:
        return "unknown"
    sides = [
        [np.array([float(f"{length:.{DIGITS}g}") for length in lengths]), *_vectors(one).values()]
        for one, lengths in ((own, before), (record, after))
    ]
    return "yes" if _rows(*sides[1]) <= _rows(*sides[0]) else "no"


def _tensors_moved(a: TensorTable | None, b: TensorTable | None) -> str:
    """Whether matrices of B are what A holds under other names: then whole blocks have other places."""
    if a is None or b is None or a.checksums is None or b.checksums is None:
        return "unknown"
    known = {
        (shape, checksum): name
        for name, shape, checksum in zip(a.names, a.shapes, a.checksums.tolist(), strict=True)
        if "×" in shape
    }
    own = dict(zip(a.names, a.checksums.tolist(), strict=True))
    moved = any(
        known.get((shape, checksum), name) != name and own.get(name) != checksum
        for name, shape, checksum in zip(b.names, b.shapes, b.checksums.tolist(), strict=True)
        if "×" in shape
    )
    return "yes" if moved else "no"
