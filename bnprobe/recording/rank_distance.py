"""How far two ranks are apart at a site: in what they were fed, and in the running statistics that they store."""

from __future__ import annotations

import numpy as np

from bnprobe.recording.layer_record import LayerRecord
from bnprobe.recording.rank_gap import RankGap
from bnprobe.stats.moments import Array, ratio


def gap_between(mine: LayerRecord, theirs: LayerRecord, pair: str) -> RankGap:
    """The gap between two ranks, or sums of ranks, which `pair` names."""
    inputs, chance = _inputs(mine, theirs)
    return RankGap(inputs, chance, pair, _stored(mine, theirs), pair)


def _inputs(mine: LayerRecord, theirs: LayerRecord) -> tuple[float, float]:
    """Distance of the means, and what it is by chance: by the spread of the means of samples, of which values are no more
    independent than they are."""
    a, b = mine.pre, theirs.pre
    within = ratio(a.m2 + b.m2, a.n + b.n)
    error = ratio(mine.pre_images.var_between, mine.pre_images.n) + ratio(
        theirs.pre_images.var_between, theirs.pre_images.n
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return _root_mean(ratio((a.mean_seen - b.mean_seen) ** 2, within)), _root_mean(ratio(error, within))


def _stored(mine: LayerRecord, theirs: LayerRecord) -> float:
    """Distance of the running statistics."""
    vectors = (mine.running_mean, theirs.running_mean, mine.running_var, theirs.running_var)
    if any(vector is None for vector in vectors):
        return float("nan")
    mean, other_mean, var, other_var = (vector for vector in vectors if vector is not None)
    with np.errstate(all="ignore"):
        moved = (mean - other_mean) ** 2 / (var + mine.eps)
        scaled = np.log((other_var + mine.eps) / (var + mine.eps)) / 2
        return _root_mean(moved + scaled**2)


def _root_mean(squares: Array) -> float:
    known = squares[np.isfinite(squares)]
    return float(np.sqrt(known.mean())) if known.size else float("nan")
