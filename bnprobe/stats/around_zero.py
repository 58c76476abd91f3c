"""Whether the scales of a network lie around 0 in place of 1: stored as w by norms that multiply by 1 + w."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bnprobe.stats.moments import Array

FEW = 2
"""Norms below which nothing is concluded from them."""

MOST = 0.5
"""Median of a norm's w up to which it lies around 0: scales of other conventions with negative entries lie around 1."""

SOME_NEGATIVE = 0.02
"""Share of negative entries, over all norms, that w has where it lies around 0; other scales have next to none."""

MOST_NORMS = 0.8
"""Share of the norms that must look like this."""


def around_zero(scales: Sequence[Array]) -> bool:
    """Whether the scales of these norms, one array each, are 0 in all of them, or of both signs around it in most."""
    if len(scales) < FEW:
        return False
    if not any(scale.any() for scale in scales):
        return True
    negative = float(np.mean(np.concatenate(scales) < 0))
    around = float(np.mean([abs(np.median(w)) < MOST and bool((w < 0).any()) for w in scales]))
    return negative >= SOME_NEGATIVE and around >= MOST_NORMS
