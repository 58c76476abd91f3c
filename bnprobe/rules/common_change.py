"""One change that many norms have in common: a number added to a vector, or a factor of it, the same in every channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.recording.names import VECTORS
from bnprobe.rules.rule import Evidence

ROUNDING = 2.0**-8
"""Relative rounding that numbers stored in bfloat16 have."""

SMALLEST = 1e-3
"""Change relative to the vector below which it may be rounding."""

ALIKE = 1e-2
"""Relative difference of two norms' numbers that are called the same."""

FEW_NORMS = 0.25
"""Share of the norms that must have a change in common."""


@dataclass(frozen=True)
class CommonChange:
    """`number` was added to (or, with `factor`, multiplied into) `vectors` of the norms at `layers`, from A to B."""

    vectors: tuple[str, ...]
    number: float
    factor: bool
    layers: tuple[str, ...]
    n_channels: int
    n_norms: int

    @property
    def everywhere(self) -> bool:
        """Whether no norm that stores such a vector is without the change."""
        return len(self.layers) == self.n_norms


def common_changes(evidence: Evidence) -> list[CommonChange]:
    """The changes that norms share; vectors with the same factor in the same norms are one."""
    sites = [(row["layer"], channels) for row, channels in evidence.sites if row["call"] == 0]
    found = [change for name in VECTORS for change in _changes_of(name, sites)]
    joined: list[CommonChange] = []
    for change in found:
        same = next((one for one in joined if _alike(one, change)), None)
        if same is None:
            joined.append(change)
        else:
            joined[joined.index(same)] = CommonChange(
                (*same.vectors, *change.vectors), *tuple(vars(same).values())[1:]
            )
    return joined


def _alike(one: CommonChange, other: CommonChange) -> bool:
    return one.factor and other.factor and one.layers == other.layers and _same(one.number, other.number)


def _changes_of(name: str, sites: list[tuple[str, pd.DataFrame]]) -> Iterator[CommonChange]:
    """The most frequent change of one vector, if enough norms have it."""
    vectors = [
        (layer, channels[f"{name}_a"].to_numpy(float), channels[f"{name}_b"].to_numpy(float))
        for layer, channels in sites
        if channels[[f"{name}_a", f"{name}_b"]].notna().all(axis=None)
    ]
    changes = [(layer, len(a), change) for layer, a, b in vectors if (change := _change(a, b)) is not None]
    for factor in (False, True):
        mine = [(layer, n, number) for layer, n, (number, is_factor) in changes if is_factor == factor]
        if not mine:
            continue
        common = float(np.median([number for _, _, number in mine]))
        shared = [(layer, n) for layer, n, number in mine if _same(number, common)]
        if len(shared) >= max(FEW_NORMS * len(vectors), 2):
            layers = tuple(layer for layer, _ in shared)
            n_channels = sum(n for _, n in shared)
            yield CommonChange((name,), common, factor, layers, n_channels, len(vectors))


def _change(a: np.ndarray, b: np.ndarray) -> tuple[float, bool] | None:
    """The number that was added to every channel, or the factor of every channel; None where it is neither.

    Of vectors that are the same in every channel both are true: then it is a sum. Vectors set to 0 are lost, not scaled.
    """
    if len(a) < 2 or not np.isfinite([a, b]).all() or (a == b).all():
        return None
    size = float(np.abs([a, b]).max())
    added = float(np.median(b - a))
    rounding = ROUNDING * size
    if abs(added) > SMALLEST * size and np.abs(b - a - added).max() <= min(rounding, ALIKE * abs(added)):
        return added, False
    there = a != 0
    if not there.any() or not b.any() or np.ptp(a) <= SMALLEST * np.abs(a).max():
        return None
    factor = float(np.median(b[there] / a[there]))
    if abs(factor - 1) > SMALLEST and (np.abs(b - factor * a) <= ROUNDING * np.abs(b)).all():
        return factor, True
    return None


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= ALIKE * abs(other)
