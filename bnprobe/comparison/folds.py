"""Norms of A that B holds in the weights before them: conv γ / σ, with or without the norm beside.

The lengths of the filters tell it, channel by channel: |γ| / √(running_var + eps) times those of A.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.stored import weights_before
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import INITIAL, VECTORS
from bnprobe.stats.moments import Array

COLUMNS = ("layer", "norm", "offset", "apart")
"""Columns of the table: a row per norm that was folded. `norm` is what is left of it in B: "kept", "initial" or "other";
`offset` says whether the weights before it add what the norm added; `apart` is the median distance of the logarithms of
the filters' lengths from the folded ones."""

CLOSE = 0.02
"""Median distance of logarithms from the folded lengths: an eps that a file does not hold makes so much of a difference."""

FAR = 0.1
"""The same from the lengths of A: of a norm that divides by 1 nothing tells whether it was folded."""


def folds(common: Iterable[Pair]) -> pd.DataFrame:
    """A row per norm of A that was folded into the weights before it in B."""
    rows = [
        (pair.a.layer, _left(pair), _adds(pair, scale), apart)
        for pair in common
        if pair.a.call == 0
        and (scale := _scale(pair.a)) is not None
        and (apart := _apart(pair, scale)) is not None
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _scale(record: LayerRecord) -> Array | None:
    """What a norm multiplies by in eval mode; None without running statistics."""
    if record.running_mean is None or record.running_var is None:
        return None
    gamma = np.ones(record.n_channels) if record.gamma is None else record.gamma
    with np.errstate(all="ignore"):
        scale: Array = gamma / np.sqrt(record.running_var + record.eps)
    return scale


def _apart(pair: Pair, scale: Array) -> float | None:
    """How far the filters of B are from those of A with the norm folded in; None where they are not these."""
    before, after = weights_before(pair.a), weights_before(pair.b)
    if before is None or after is None:
        return None
    with np.errstate(all="ignore"):
        changed = np.log(after.norm / before.norm)
        away = np.abs(changed - np.log(np.abs(scale)))
    known = np.isfinite(changed) & np.isfinite(away)
    if not known.any() or np.median(np.abs(changed[known])) <= FAR:
        return None
    apart = float(np.median(away[known]))
    return apart if apart < CLOSE else None


def _left(pair: Pair) -> str:
    """What B holds of the norm."""
    if _is_initial(pair.b):
        return "initial"
    both = ((getattr(one, name) for one in pair) for name in VECTORS)
    same = all(mine is theirs or (mine is not None and np.array_equal(mine, theirs)) for mine, theirs in both)
    return "kept" if same else "other"


def _is_initial(record: LayerRecord) -> bool:
    vectors = ((getattr(record, name), start) for name, start in INITIAL.items())
    return all(vector is None or bool((vector == start).all()) for vector, start in vectors)


def _adds(pair: Pair, scale: Array) -> bool:
    """Whether the weights of B add β - running_mean γ / σ, and the bias that those of A have, times γ / σ."""
    before, after = weights_before(pair.a), weights_before(pair.b)
    mean = pair.a.running_mean
    if before is None or after is None or after.bias is None or mean is None:
        return False
    beta = 0.0 if pair.a.beta is None else pair.a.beta
    expected = beta + ((0.0 if before.bias is None else before.bias) - mean) * scale
    return bool(np.median(np.abs(after.bias - expected)) <= CLOSE * np.median(np.abs(expected)))
