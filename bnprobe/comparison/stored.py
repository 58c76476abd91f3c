"""What of a side's stored vectors no distance can tell: values that are not finite, negative variances, vectors missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bnprobe.comparison.pairs import Pair
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import VECTORS
from bnprobe.recording.neighbours import Folded
from bnprobe.stats.moments import Array

Mask = npt.NDArray[np.bool_]
"""Which channels, shape (C,)."""


def weights_before(record: LayerRecord) -> Folded | None:
    """The weights that feed a norm alone; None where they are not known."""
    return None if record.neighbours is None else record.neighbours.folded


def channel_columns(pair: Pair) -> dict[str, Mask]:
    """Channels with a value that is not finite or a negative variance, other than on the other side; shape (C,) each."""
    return {
        f"poisoned_{side}": np.any([infinite | negative for infinite, negative in found.values()], axis=0)
        if (found := _poison(record, other))
        else np.zeros(record.n_channels, dtype=bool)
        for side, record, other in _sides(pair)
    }


def layer_columns(pair: Pair) -> dict[str, Any]:
    """The same in words, and the names of the vectors that only the other side has; "" where there is nothing."""
    sides = _sides(pair)
    return {
        **{f"poison_{side}": _words(_poison(record, other)) for side, record, other in sides},
        **{f"missing_{side}": ", ".join(_missing(record, other)) for side, record, other in sides},
    }


def _sides(pair: Pair) -> tuple[tuple[str, LayerRecord, LayerRecord], ...]:
    return ("a", pair.a, pair.b), ("b", pair.b, pair.a)


def _missing(record: LayerRecord, other: LayerRecord) -> list[str]:
    return [
        shown
        for name, shown in VECTORS.items()
        if getattr(record, name) is None and getattr(other, name) is not None
    ]


def _poison(record: LayerRecord, other: LayerRecord) -> dict[str, tuple[Mask, Mask]]:
    """Per vector that the record has: where it is not finite, and where it is a variance below 0."""
    found = {}
    for name in VECTORS:
        mine, theirs = getattr(record, name), getattr(other, name)
        if mine is not None:
            # what both sides share did not change between them: `check` tells it of each
            new = np.ones(mine.shape, dtype=bool) if theirs is None else ~_equal(mine, theirs)
            negative = np.isfinite(mine) & (mine < 0) & (name == "running_var")
            found[name] = (new & ~np.isfinite(mine), new & negative)
    return found


def _equal(mine: Array, theirs: Array) -> Mask:
    return np.isclose(mine, theirs, rtol=0, atol=0, equal_nan=True)


def _words(found: dict[str, tuple[Mask, Mask]]) -> str:
    facts = [
        f"{VECTORS[name]} is {what} in {int(where.sum())} of {len(where)} channels"
        for name, masks in found.items()
        for what, where in zip(("not finite", "below 0"), masks, strict=True)
        if where.any()
    ]
    return " and ".join(facts)
