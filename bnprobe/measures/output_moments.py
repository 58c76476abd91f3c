"""Whether the outputs have mean beta and standard deviation |gamma|, as batch norm is meant to give them, and why not."""

from __future__ import annotations

import numpy as np

from bnprobe.measures import verdict
from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.recording import CHANNELS, LayerRecord
from bnprobe.recording.names import NEVER_UPDATED, TOO_FEW
from bnprobe.recording.terms import FORMULA_MISMATCH, VISIBLE_SHIFT
from bnprobe.stats.moments import Array

OFF_MEAN, OFF_SCALE = VISIBLE_SHIFT, verdict.VISIBLE_SCALE
"""Median |mean − beta| in |gamma|, and median |ln(std / |gamma|)|, up to which a layer is on target: the sizes from
which a shift is visible, so that a layer whose verdict is "same" is on target."""

LITTLE_LEFT = 1 / 3
"""Part of a miss that may be left where eps is called its reason."""

HOLDS, UNKNOWN, OTHER, EPS = "holds", "unknown", "other formula", "eps"
OWN, NEVER, SMALL, SHIFT, BY_BATCH = (
    "own statistics",
    "never updated",
    "small sample",
    "shift",
    "batch statistics",
)
REASONS = (HOLDS, UNKNOWN, OTHER, EPS, OWN, NEVER, SMALL, SHIFT, BY_BATCH)

_IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167, section 3"
COLUMNS = (
    Column(
        "beta_error",
        "Distance of the outputs' mean from β, in units of |γ|: the target is 0.",
        "(post_mean − β) / |γ|",
        "|γ|",
        _IOFFE,
    ),
    Column(
        "gamma_ratio",
        "Standard deviation of the outputs relative to |γ|: the target is 1.",
        "√post_var / |γ|",
        "",
        _IOFFE,
    ),
    Column(
        "beta_error_median",
        "Typical distance of the outputs' mean from β, in either direction.",
        "median |beta_error|",
        "|γ|",
        table="layers",
    ),
    Column(
        "gamma_ratio_median",
        "Typical standard deviation of the outputs relative to |γ|.",
        "median gamma_ratio",
        table="layers",
    ),
    Column(
        "why_not",
        "Whether the outputs have mean β and standard deviation |γ|: holds, or the first reason found why they do not.",
        f"holds: median |beta_error| ≤ {OFF_MEAN} and median |ln gamma_ratio| ≤ {OFF_SCALE}; else {', '.join(REASONS[2:])}",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Error of the mean and ratio of the std, shape (C,) each; NaN where gamma is 0 or nothing was measured.

    A norm without gamma or beta has 1 and 0 in their place.
    """
    scale = np.ones(record.n_channels) if record.gamma is None else np.abs(record.gamma)
    scale = np.where(scale > 0, scale, np.nan)
    offset = 0.0 if record.beta is None else record.beta
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            "beta_error": (record.post.mean_seen - offset) / scale,
            "gamma_ratio": np.sqrt(record.post.var_population) / scale,
        }


def layer_columns(record: LayerRecord, columns: Columns) -> dict[str, float | str]:
    """Medians, and the reason."""
    return {
        "beta_error_median": median(np.abs(columns["beta_error"])),
        "gamma_ratio_median": median(columns["gamma_ratio"]),
        "why_not": _why_not(record, columns["beta_error"], columns["gamma_ratio"], columns),
    }


def _why_not(record: LayerRecord, error: Array, ratio: Array, columns: Columns) -> str:
    """The first that applies, in this order: every reason but the last explains all that comes after it."""
    if np.isnan(median(ratio)):
        return UNKNOWN
    if _on_target(error, ratio):
        return HOLDS
    if record.output == "read" and record.pools != CHANNELS and record.mismatch > FORMULA_MISMATCH:
        return OTHER
    if record.normalized_by == "sample":
        return OWN
    if _on_target(error, _without_eps(record, ratio)) or _eps_is_most(record, ratio):
        return EPS
    if record.normalized_by == "batch":
        return BY_BATCH
    judged = verdict.layer_columns(record, columns)["verdict"]
    if judged in (NEVER_UPDATED, TOO_FEW):
        return NEVER if judged == NEVER_UPDATED else SMALL
    return SHIFT if record.normalized_by == "running" else BY_BATCH


def _on_target(error: Array, ratio: Array) -> bool:
    return median(np.abs(error)) <= OFF_MEAN and _off_scale(ratio) <= OFF_SCALE


def _off_scale(ratio: Array) -> float:
    with np.errstate(divide="ignore"):
        return median(np.abs(np.log(ratio)))


def _eps_is_most(record: LayerRecord, ratio: Array) -> bool:
    """Whether little of a scale that is off would be left without eps."""
    return _off_scale(ratio) > OFF_SCALE and _off_scale(
        _without_eps(record, ratio)
    ) < LITTLE_LEFT * _off_scale(ratio)


def _without_eps(record: LayerRecord, ratio: Array) -> Array:
    """The ratio if nothing had been added to the variance before the root."""
    stored = record.normalized_by == "running" and record.running_var is not None
    var = record.running_var if stored else record.pre.var_population
    assert var is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        return ratio * np.sqrt((var + record.eps) / var)
