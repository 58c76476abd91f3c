"""The tensors that are no norm's: which differ, which only one side has, and which come before a norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bnprobe.recording import Recording, TensorTable

COLUMNS = ("tensor", "side", "size_a", "size_b", "shape_a", "shape_b", "place")
"""Columns of the table of tensors. `side` is "both", "A" or "B"; sizes are root mean squares; `place` counts in the order
of A, and of B where A has no such tensor."""


def tensor_differences(a: Recording, b: Recording) -> pd.DataFrame:
    """A row per tensor that differs or that one side lacks, the norms' own and buffers left out; A's order first."""
    rows = list(_differing(a, b)) if a.tensors is not None and b.tensors is not None else []
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _differing(a: Recording, b: Recording) -> Iterator[tuple[Any, ...]]:
    mine, theirs = a.tensors or TensorTable(), b.tensors or TensorTable()
    norms = {record.layer for side in (a, b) for record in side.layers} | {*a.never_called, *b.never_called}
    there = {name: j for j, name in enumerate(theirs.names)}
    # a file holds buffers and tied weights besides, which a model does not list
    lists_alike = a.weights_only == b.weights_only
    for i, name in enumerate(mine.names):
        if name.rpartition(".")[0] in norms:
            continue
        j = there.get(name)
        if j is None:
            if lists_alike:
                yield name, "A", mine.size(i), float("nan"), mine.shapes[i], "", i
        elif not mine.same(i, theirs, j):
            yield name, "both", mine.size(i), theirs.size(j), mine.shapes[i], theirs.shapes[j], i
    here = set(mine.names)
    for j, name in enumerate(theirs.names):
        if lists_alike and name not in here and name.rpartition(".")[0] not in norms:
            yield name, "B", float("nan"), theirs.size(j), "", theirs.shapes[j], j


def first_place(a: Recording, layer: str) -> int:
    """Where the tensors of a norm begin in A; after everything where it has none of its own."""
    names = () if a.tensors is None else a.tensors.names
    return next((i for i, name in enumerate(names) if name.rpartition(".")[0] == layer), len(names))


def n_others(a: Recording) -> int:
    """Tensors of A that are no norm's."""
    norms = {record.layer for record in a.layers} | {*a.never_called}
    return 0 if a.tensors is None else sum(name.rpartition(".")[0] not in norms for name in a.tensors.names)
