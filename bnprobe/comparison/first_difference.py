"""Where two sides part: the first place, in the order in which the data pass, from which on they lie apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bnprobe.comparison.significance import ROUNDING
from bnprobe.recording.names import said

NOISE = 3.0
"""Times the noise that a gap must be to count. The 16 channels of a CIFAR ResNet's first norms are so correlated that they
are worth 3 independent ones: of layers like these without a difference four in a million are beyond."""

WORDS = {
    "pre": "the input",
    "post": "the output",
    "running": "the running statistics",
    "affine": "γ and β",
}


class DifferenceSite(NamedTuple):
    """A place where two sides differ, and by how much.

    What `Comparison.opens` is.

    Attributes:
        layer: Path of the norm.
        call: Number of the call in a forward pass, from 0.
        aspect: What differs: "pre" (the input), "post" (the output), "running" (the running statistics) or "affine" (γ
            and β).
        gap: The distance, in standard deviations (the root mean square of both sides').
        noise: Standard error of `gap` from the choice of samples; NaN if unknown.
    """

    layer: str
    call: int
    aspect: str
    gap: float
    noise: float

    @property
    def words(self) -> str:
        """The place in words, such as "the output of layer2.1.bn1"."""
        return f"{WORDS[self.aspect]} of {said(self.layer, self.call)}"


def difference_sites(layers: pd.DataFrame) -> Iterator[DifferenceSite]:
    """Every known gap: by the data where some went through, by what is stored where none did."""
    seen = bool(len(layers)) and bool(layers[["pre_gap", "post_gap"]].notna().any(axis=None))
    for _, row in layers.iterrows():
        for aspect in ("pre", "post") if seen else ("running", "affine"):
            if not np.isnan(row[f"{aspect}_gap"]):
                yield DifferenceSite(
                    str(row["layer"]),
                    int(row["call"]),
                    aspect,
                    float(row[f"{aspect}_gap"]),
                    _noise(row, aspect),
                )


def first_difference(layers: pd.DataFrame, limit: float) -> DifferenceSite | None:
    """The first place whose gap is at least `limit` and is not what the choice of images makes; None without one.

    `layers` in the order in which the data pass. A gap whose noise is not known counts by its size alone.
    """
    return next(
        (
            place
            for place in difference_sites(layers)
            if place.gap >= limit and not place.gap < NOISE * place.noise
        ),
        None,
    )


def first_beyond_noise(layers: pd.DataFrame) -> DifferenceSite | None:
    """The first place that differs by more than rounding and more than the choice of images makes, however little."""
    return first_difference(layers, ROUNDING)


def _noise(row: Any, aspect: str) -> float:
    return float(row[f"{aspect}_noise"]) if aspect in ("pre", "post") else float("nan")
