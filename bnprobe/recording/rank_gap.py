"""How far apart the ranks of a process group were at a site, when their recordings were merged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bnprobe.recording.names import spelled


@dataclass(frozen=True)
class RankGap:
    """Of all pairs of ranks, or of sums of ranks, that were merged, how far those were apart that were farthest.

    `inputs` is the distance of the means of their inputs, in σ within them (root mean square over channels),
    `inputs_chance` what it is on average for samples of one kind, `inputs_of` the pair in words. `stored` is the distance
    of the running statistics with which they began, in running σ and in logarithms of it, 0 where they are the
    same, and `stored_of` that pair. NaN where nothing can be said.
    """

    inputs: float
    inputs_chance: float
    inputs_of: str
    stored: float
    stored_of: str

    def __repr__(self) -> str:
        return f"RankGap(inputs {self.inputs:.2g} σ, stored {self.stored:.2g} σ)"

    def __post_init__(self) -> None:
        for name in ("inputs_of", "stored_of"):
            object.__setattr__(self, name, spelled(getattr(self, name)))

    def merge(self, other: Self) -> Self:
        """Of both sets of pairs the farthest."""
        inputs = max(self, other, key=lambda gap: np.nan_to_num(gap.beyond_chance, nan=-1.0))
        stored = max(self, other, key=lambda gap: np.nan_to_num(gap.stored, nan=-1.0))
        return replace(inputs, stored=stored.stored, stored_of=stored.stored_of)

    @property
    def beyond_chance(self) -> float:
        """The distance of the inputs less what chance gives."""
        return float(np.sqrt(np.maximum(self.inputs**2 - self.inputs_chance**2, 0)))
