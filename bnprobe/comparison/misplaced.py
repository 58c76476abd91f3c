"""Vectors of B that A holds elsewhere: under another norm's name, or in other channels of the same norm.

No training writes the numbers of one norm into another, or the same numbers in another order: converters, renamed keys,
pruning and reordering do. So values are compared to the last bit, in the precision of the side that has less of it, and
vectors that do not vary say nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.comparison.lineage import filter_lengths
from bnprobe.recording import LayerRecord, Recording, TensorTable
from bnprobe.recording.names import VECTORS
from bnprobe.stats.moments import Array

COLUMNS = ("layer", "source", "how", "vectors", "n_channels", "n_channels_a", "along")
"""Columns of the table: a row per norm of B. `source` is the norm of A that its `vectors` are of, `how` is "moved" (from
another norm), "reordered" or "picked" (some channels of A's). Vectors that have other channels than the rest are apart
from it: "gamma, beta | running_mean". `along` says whether weights beside the norm went the same way: "yes", "no", or
"unknown" where none are known."""

FEWEST = 4
"""Different numbers in a vector for their places to say something; of channels that were picked, half of all of them."""

HALVES = ("float16", "bfloat16")

DIGITS = 9
"""Of filter lengths, which are summed in another order where channels have another one."""


def misplaced(a: Recording, b: Recording) -> pd.DataFrame:
    """A row per norm of B that holds what A holds elsewhere."""
    half = {side: _half(recording) for side, recording in (("a", a), ("b", b))}
    cast = half["a"] != half["b"]
    mine, theirs = (
        {record.layer: _stored_as(record, other) for record in recording.layers if record.call == 0}
        for recording, other in ((a, half["b"] * cast), (b, half["a"] * cast))
    )
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
            along = "unknown" if cast else _filters_along(own, record)
            if along == "unknown" and _kept_projection(layer, a.tensors, b.tensors):
                along = "no"
            rows.append((layer, layer, how, _together(own, record), n, own.n_channels, along))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _half(recording: Recording) -> str:
    """The type of half precision in which all norms are stored; empty where they are not."""
    types = {record.parameter_dtype for record in recording.layers if record.parameter_dtype}
    return types.pop() if len(types) == 1 and types < set(HALVES) else ""


def _stored_as(record: LayerRecord, half: str) -> LayerRecord:
    """The same with vectors rounded to this type; as they are where none is named."""
    if not half:
        return record
    rounded: dict[str, Any] = {name: _rounded(vector, half) for name, vector in _vectors(record).items()}
    return replace(record, **rounded)


def _rounded(vector: Array, half: str) -> Array:
    with np.errstate(over="ignore"):
        if half == "float16":
            return vector.astype(np.float16).astype(np.float64)
        bits = vector.astype(np.float32).view(np.uint32)
    # to the nearest, and to the even one of two: bfloat16 is the upper half of float32
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    rounded: Array = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return rounded


def _vectors(record: LayerRecord) -> dict[str, Array]:
    return {name: vector for name in VECTORS if (vector := getattr(record, name)) is not None}


def _varies(vector: Array) -> bool:
    return bool(np.isfinite(vector).all() and len(np.unique(vector)) >= FEWEST)


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
        name in before and not np.array_equal(vector, before[name]) and _among(vector, before[name])
        for name, vector in _items(record)
    )


def _among(vector: Array, before: Array) -> bool:
    """Whether all of these numbers are among those, each as often at most."""
    if len(vector) == len(before):
        return np.array_equal(np.sort(vector), np.sort(before))
    distinct = 2 * len(np.unique(vector)) >= len(vector)
    return distinct and len(vector) < len(before) and _rows(vector) <= _rows(before)


def _together(own: LayerRecord, record: LayerRecord) -> str:
    """The vectors that vary and hold numbers of A, in groups that have the same channels of it."""
    before = _vectors(own)
    groups: list[list[str]] = []
    for name, vector in _items(record):
        if name not in before or not _among(vector, before[name]):
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
    before, after = filter_lengths(own), filter_lengths(record)
    if before is None or after is None:
        return "unknown"
    sides = [
        [np.array([float(f"{length:.{DIGITS}g}") for length in lengths]), *_vectors(one).values()]
        for one, lengths in ((own, before), (record, after))
    ]
    return "yes" if _rows(*sides[1]) <= _rows(*sides[0]) else "no"


PER_HEAD = re.compile(r"^(?:attn_)?(?:norm_)?(q|k|query|key)(?:_(?:norm|layernorm))?$")
"""Norms of the queries or keys of each head, and what their weights may be called: both by the same word."""


def _kept_projection(layer: str, a: TensorTable | None, b: TensorTable | None) -> bool:
    """Whether the weights that make the queries or keys of a norm per head are in B as they are in A."""
    parent, _, name = layer.rpartition(".")
    what = PER_HEAD.match(name)
    if a is None or b is None or what is None:
        return False
    there = {one: j for j, one in enumerate(b.names)}
    names = (f"{parent}.{what[1]}{end}.weight".lstrip(".") for end in ("", "_proj", "_lin", "_linear"))
    return any(one in there and one in a.names and a.same(a.names.index(one), b, there[one]) for one in names)


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
