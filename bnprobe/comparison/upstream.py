"""What lies before a norm and may explain that its inputs differ: weights that differ, and dropout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.tensors import COLUMNS, first_place, tensor_differences
from bnprobe.recording import Dropout, Recording


def _no_tensors() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS))


@dataclass(frozen=True)
class Upstream:
    """The tensors that differ beside the norms, where the tensors of each norm begin in A, and the dropout of both sides."""

    tensors: pd.DataFrame = field(default_factory=_no_tensors)
    places: dict[str, int] = field(default_factory=dict)
    dropouts: tuple[Dropout, ...] = ()

    @classmethod
    def of(cls, a: Recording, b: Recording) -> Self:
        """Of two recordings."""
        places = {record.layer: first_place(a, record.layer) for record in a.layers}
        return cls(tensor_differences(a, b), places, a.dropouts or b.dropouts)

    def facts(self, common: Iterable[Pair]) -> Iterator[dict[str, Any]]:
        """For every site, in the order of the data, whether weights before it differ, and which dropout is new there."""
        differing = self.tensors.loc[self.tensors["side"] == "both", "place"]
        first = differing.min() if len(differing) else float("inf")
        moved = False
        for pair in common:
            moved = moved or pair.filters_differ or bool(first < self.places.get(pair.a.layer, 0))
            mine = [one for one in self.dropouts if one.before == pair.a.layer]
            yield {
                "weights_before_differ": moved,
                "dropout_before": ", ".join(f"{one.path} (p = {one.p:g})" for one in mine),
            }
            moved = moved or _vectors_differ(pair)


def _vectors_differ(pair: Pair) -> bool:
    """Whether γ or β differ, or running statistics that a side used."""
    used = "running" in (pair.a.normalized_by, pair.b.normalized_by)
    names = ("gamma", "beta", "running_mean", "running_var") if used else ("gamma", "beta")
    both = ((getattr(pair.a, name), getattr(pair.b, name)) for name in names)
    return any(
        (mine is None) != (theirs is None)
        or (mine is not None and theirs is not None and not np.array_equal(mine, theirs, equal_nan=True))
        for mine, theirs in both
    )
