"""Columns that need not travel, because the page can compute them: normalization is an affine map.

Where a norm used its running statistics, its inputs follow from the shift and the scale ratio, and its outputs
from γ and β. Each formula is tried on the network's own numbers first, and used only where it holds for every
channel to 1 part in 2,000; `store.js` holds the same formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, Any]

NEEDED = ("gamma", "beta", "running_mean", "running_var", "shift", "scale_ratio")
DERIVED = ("pre_mean", "pre_var", "post_mean", "post_var", "kl")
TOLERANCE = 5e-4


def derived_columns(channels: pd.DataFrame, eps: Array) -> list[str]:
    """Names of the columns that follow from NEEDED; `eps` is that of each channel's layer, shape (rows,)."""
    if not all(name in channels and channels[name].notna().any() for name in NEEDED):
        return []
    given = {name: channels[name].to_numpy(dtype=float) for name in NEEDED}
    true = {name: channels[name].to_numpy(dtype=float) for name in DERIVED}
    with np.errstate(all="ignore"):
        computed = formulas(given, eps)
        return [name for name in DERIVED if _agree(computed[name], true[name], given, eps)]


def formulas(given: dict[str, Array], eps: Array) -> dict[str, Array]:
    """Mean and variance before and after the norm, and the KL divergence of measured from running statistics."""
    var = given["running_var"] + eps
    shift, ratio = given["shift"], given["scale_ratio"]
    return {
        "pre_mean": given["running_mean"] + shift * np.sqrt(var),
        "pre_var": ratio**2 * var,
        "post_mean": given["beta"] + given["gamma"] * shift,
        "post_var": (given["gamma"] * ratio) ** 2,
        "kl": (ratio**2 + shift**2 - 1) / 2 - np.log(ratio),
    }


def _agree(computed: Array, true: Array, given: dict[str, Array], eps: Array) -> bool:
    """Whether two columns are the same to the eye: means are compared on the scale of their standard deviation."""
    if not np.array_equal(np.isnan(computed), np.isnan(true)):
        return False
    sigma = np.sqrt(given["running_var"] + eps) * np.minimum(np.abs(given["scale_ratio"]), 1)
    room = TOLERANCE * np.maximum(np.abs(true), np.where(np.isfinite(sigma), sigma, 0)) + 1e-9
    return bool(np.all((np.abs(computed - true) <= room) | np.isnan(true) | (computed == true)))
