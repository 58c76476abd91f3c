"""Two sides that saw the same samples in the same order: what these have in common cancels in each fold.

Nobody keeps the samples, so it is seen from the folds: the means of one side's folds rise and fall with those of the
other. An error of paired differences is right for any two sides with as many samples in each fold, and smaller only if
they go together; so a wrong guess costs degrees of freedom and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.spread import Spread
from bnprobe.measures.dependence import ENOUGH_FOLDS
from bnprobe.stats.jackknife import Estimate, jackknife
from bnprobe.stats.moderation import moderated
from bnprobe.stats.moments import Array

TOGETHER = 0.9
"""Mean correlation of the folds of both sides over the channels of the first norm: by chance, a single channel of ten folds
has as much in two of 10,000 comparisons."""


def are_paired(pairs: Sequence[Pair]) -> bool:
    """Whether both sides saw the same samples in the same order, by the first norm that was run on both."""
    for pair in pairs:
        a, b = pair.a.pre_folds, pair.b.pre_folds
        if a is None or b is None:
            continue
        if a.n.shape != b.n.shape or len(a.n) < ENOUGH_FOLDS or not np.array_equal(a.n, b.n):
            return False
        known = (a.n > 0).all(axis=0)
        mine, theirs = (_centred(folds.a[:, known] / folds.n[:, known]) for folds in (a, b))
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            r = (mine * theirs).sum(axis=0) / np.sqrt((mine**2).sum(axis=0) * (theirs**2).sum(axis=0))
        r = r[np.isfinite(r)]
        return bool(r.size and r.mean() >= TOGETHER)
    return False


def _centred(means: Array) -> Array:
    centred: Array = means - means.mean(axis=0)
    return centred


def can_pair(a: Spread, b: Spread) -> bool:
    """Whether both have folds with as many samples in each."""
    return a.folds is not None and b.folds is not None and np.array_equal(a.folds.n, b.folds.n)


def error_of_difference(
    a: Spread,
    b: Spread,
    statistic: Callable[[Array, Array], Array],
    slopes: tuple[Array, Array],
    apart: Array,
) -> Estimate:
    """The error of `statistic` of B, times its slope, less that of A; each fold by itself.

    `apart` is the error that the difference would have of two sides with samples of their own: how much smaller the real
    one is, is drawn towards what the channels of the layer have in common.
    """
    sides = [side.folds.leave_out(statistic) for side in (a, b) if side.folds is not None]
    (whole_a, without_a, n), (whole_b, without_b, _) = sides
    slope_a, slope_b = slopes
    error = jackknife(slope_b * whole_b - slope_a * whole_a, slope_b * without_b - slope_a * without_a, n)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        factor, degrees = moderated((error.se / apart) ** 2, error.degrees)
        return Estimate(np.where(error.se > 0, np.sqrt(factor) * apart, error.se), degrees)
