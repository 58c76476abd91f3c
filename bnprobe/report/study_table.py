"""What a study of ablations has measured, as plain data, and what follows from it: what vectors are worth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from bnprobe.recording.terms import ACCURACY, AGREEMENT, LOSS, OUTPUT

LEVELS = ("network", "stage", "layer")
"""What a row of the table is about."""

NEUTRAL = {
    "mean": "0",
    "var": "1",
    "scale": "constant",
    "centering": "removed",
    "weight": "1",
    "bias": "0",
}
"""What stands for a norm without the vector: what a norm holds before training."""


@dataclass(frozen=True, repr=False, eq=False)
class StudyTable:
    """The fields of a `Study`."""

    table: pd.DataFrame
    model: str
    metric: str
    n_samples: int
    seconds: float
    seed: int = 0
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    @cached_property
    def worth(self) -> pd.DataFrame:
        """A row per layer and vector: `worth`, what the metric loses without the vector, and its 95% interval.

        Without it means: a mean or bias of 0, a variance or weight of 1, one scale for all tokens, no centering (column
        `replacement`). Columns `low`, `high`, `n`
        and `estimated` as in `table`, in whose order the rows are.
        """
        neutral = self.table["replacement"] == self.table["vector"].map(NEUTRAL)
        rows = self.table[neutral].reset_index(drop=True)
        sign = -1.0 if self.larger_is_better else 1.0
        ends = sign * rows[["low", "high"]]
        return pd.DataFrame(
            {
                "layer": rows["layer"],
                "vector": rows["vector"],
                "worth": sign * rows["difference"] + 0.0,  # no -0.0
                "low": ends.min(axis=1, skipna=False) + 0.0,
                "high": ends.max(axis=1, skipna=False) + 0.0,
                "replacement": rows["replacement"],
                "n": rows["n"],
                "estimated": rows["estimated"],
            }
        )

    @property
    def layers(self) -> list[str]:
        """The layers by themselves, in the order of execution, without stages and the whole network."""
        return [str(name) for name in self.table.loc[self.table["level"] == "layer", "layer"].unique()]

    @property
    def larger_is_better(self) -> bool:
        """Whether a loss is a smaller metric: not for a loss, or the change of an output."""
        return self.metric not in (OUTPUT, LOSS)

    @property
    def in_percent(self) -> bool:
        """Whether the metric is a share."""
        return self.metric in (ACCURACY, AGREEMENT)

    @property
    def n_compared(self) -> int:
        """Rows that are both estimated and measured."""
        return len(self._compared)

    @property
    def rank_correlation(self) -> float:
        """Spearman's, between the sizes of estimated and measured changes; NaN where fewer than three rows have both."""
        sizes = self._compared[["estimate", "difference"]].abs().rank()
        return float(sizes["estimate"].corr(sizes["difference"])) if len(sizes) > 2 else float("nan")

    @property
    def _compared(self) -> pd.DataFrame:
        return self.table[~self.table["estimated"] & self.table["estimate"].notna()]
