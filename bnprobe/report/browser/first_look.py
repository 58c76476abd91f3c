"""Which measure the map shows first: the one that the top finding is about, or in which the data differ most."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

SHOWN_BY = {
    "role": (
        "channels-dead",
        "channels-constant",
        "channels-silent",
        "channels-silenced",
        "channels-saturated",
        "outputs-saturated",
    ),
    "gamma": (
        "affine-untrained",
        "affine-reset",
        "branch-off",
        "vectors-swapped",
        "outlier-dimensions",
        "norm-folded",
    ),
    "filter_norm": ("filters-decayed",),
    "running_var": (
        "variance-below-eps",
        "statistics-never-updated",
        "statistics-lost",
        "statistics-poisoned",
        "statistics-alike",
    ),
    "pre_var": ("values-not-finite", "half-overflow", "digits-lost", "rows-constant", "few-values"),
    "gamma_snr": ("gradient-no-signal", "updates-below-step"),
    "dy_var": ("gradient-breaks", "gradient-not-finite"),
}
"""Rules by the measure that shows what they found; all others are about how data and running statistics agree."""

FLAT = 0.3
"""Distance between small and large |γ| (5% and 95% of the channels) below which all have one color to the eye."""

_MEASURE_OF = {rule: measure for measure, rules in SHOWN_BY.items() for rule in rules}


def first_measure(findings: pd.DataFrame, channels: pd.DataFrame, shown: Collection[str]) -> str:
    """One of the `shown` measures, which are not empty."""
    serious = findings[findings["severity"] != "info"]
    asked: list[str] = [_MEASURE_OF.get(str(rule), "") for rule in serious["rule"][:1]]
    nothing = {"role"} if (channels["role"] == "unknown").all() else set()
    scales: tuple[str, ...] = ("pre_var", "running_var") if _is_flat(channels) else ()
    for name in (*asked, _larger_difference(channels), *scales, "gamma", "pre_var"):
        if name in shown and name not in nothing:
            return name
    return next(iter(shown))


def _is_flat(channels: pd.DataFrame) -> bool:
    """Whether a map of γ would be one color."""
    sizes = channels["gamma"].to_numpy(dtype=np.float64)
    sizes = np.abs(sizes[np.isfinite(sizes)])
    return bool(sizes.size and np.ptp(np.quantile(sizes, (0.05, 0.95))) < FLAT)


def _larger_difference(channels: pd.DataFrame) -> str:
    """What is further off, means or standard deviations, in the units in which their distances add up."""
    shift, ratio = (channels[name].to_numpy(dtype=np.float64) for name in ("shift", "scale_ratio"))
    known = np.isfinite(shift) & np.isfinite(ratio)
    means, sizes = float(np.sum(shift[known] ** 2)), float(np.sum((ratio[known] - 1) ** 2))
    return "scale_ratio" if sizes > means else "shift"
