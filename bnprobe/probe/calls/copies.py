"""Samples that are the same to the last digit, as files that could not be read, or one random number for all workers, make.

They are looked for among the samples of a first call, by the extremes of all channels: equal inputs have equal ones, and
unlike sums extremes are not rounded.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np

from bnprobe.stats import Moments

FEWEST_POSITIONS = 16
"""Positions from which samples that are equal are copies: rows of a few numbers may be equal by chance."""

FEWEST = 4
"""Equal samples from which they are a group: those that were drawn twice are fewer."""


class Copies(NamedTuple):
    """Shares of the samples of a call: those that have an equal one, and those of the largest group of equal ones."""

    repeated: float = 0.0
    largest: float = 0.0


NO_COPIES = Copies()


def copies_among(rows: Moments | None) -> Copies:
    """Of the moments (N, C) of N samples; samples without finite values are none."""
    if rows is None or not (known := (rows.n > 0).any(1)).any():
        return NO_COPIES
    keys = np.concatenate([rows.low, rows.high], axis=1)[known]
    sizes = Counter(key.tobytes() for key in keys)
    repeated, largest = sum(n for n in sizes.values() if n > 1), max(sizes.values())
    return Copies(repeated / len(keys), largest / len(keys) if largest >= FEWEST else 0.0)
