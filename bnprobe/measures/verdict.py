"""The verdict on a layer: do its inputs match the running statistics?

A verdict needs significance and size: with a thousand samples every difference is significant, and with eight
any difference may be chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnprobe.measures import dependence, scale, shift
from bnprobe.measures.columns import Column, Columns
from bnprobe.measures.shape import median
from bnprobe.measures.standard_errors import sampling_part
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import (
    BOTH_SHIFTED,
    MEAN_SHIFTED,
    NEVER_UPDATED,
    NO_STATISTICS,
    SAME,
    SCALE_SHIFTED,
    TOO_FEW,
)
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import SIGNIFICANT

VISIBLE_SCALE = 0.1
"""Change of the log of the std from which it has a size: 10%, or 20% of the variance."""

ENOUGH = 1 / 3
"""Share of a layer's channels that must differ, significantly and visibly, for the layer to count as shifted."""

FEWEST = 10
"""Samples below which a layer is never called the same: the error estimated from them is itself off by a quarter."""

OVERWHELMING = 3
"""Times the visible size by which a channel must differ to count below so few samples."""

COLUMNS = (
    Column(
        "verdict",
        "Whether the inputs match the running statistics, by significance and by size.",
        "shifted: mean_moved or scale_moved ≥ 1/3; same: a visible shift would be 2 errors and few channels look shifted",
        source="Schneider et al. 2020, arXiv:2006.16971",
        table="layers",
    ),
    Column(
        "mean_moved",
        "Share of channels whose mean differs significantly and visibly.",
        f"share of shift_q < {SIGNIFICANT} and |shift| ≥ {VISIBLE_SHIFT}, below {FEWEST} samples {OVERWHELMING} times that",
        "0 to 1",
        table="layers",
    ),
    Column(
        "scale_moved",
        "Share of channels whose scale differs significantly and visibly.",
        f"share of scale_q < {SIGNIFICANT} and |ln ratio| ≥ {VISIBLE_SCALE} (ratio as in scale_z), below {FEWEST} samples "
        f"{OVERWHELMING} times that",
        "0 to 1",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord, columns: Columns) -> dict[str, float | str]:
    """The verdict, and the shares of channels that it rests on (NaN where nothing could be tested)."""
    mean, size = _effects(record, columns)
    return {
        "verdict": _verdict(record, mean, size, columns["shift_se"]),
        "mean_moved": mean.moved,
        "scale_moved": size.moved,
    }


@dataclass(frozen=True)
class _Effect:
    """Shares of the tested channels: `moved` significantly and visibly, `looks` moved visibly, significant or not."""

    moved: float
    looks: float


def _effects(record: LayerRecord, columns: Columns) -> tuple[_Effect, _Effect]:
    """Of the mean, and of the scale."""
    times = OVERWHELMING if _n_images(record) < FEWEST else 1
    return (
        _effect(columns["shift"], times * VISIBLE_SHIFT, columns["shift_q"]),
        _effect(scale.log_ratio(record), times * VISIBLE_SCALE, columns["scale_q"]),
    )


def _effect(size: Array, visible: float, q: Array) -> _Effect:
    tested = ~np.isnan(q)
    if not tested.any():
        return _Effect(np.nan, np.nan)
    looks = np.abs(size[tested]) >= visible
    return _Effect(float(np.mean(looks & (q[tested] < SIGNIFICANT))), float(np.mean(looks)))


def _verdict(record: LayerRecord, mean: _Effect, size: _Effect, shift_se: Array) -> str:
    if not stores_statistics(record):
        return NO_STATISTICS
    if never_updated(record):
        return NEVER_UPDATED
    moved = mean.moved >= ENOUGH, size.moved >= ENOUGH
    if any(moved):
        return BOTH_SHIFTED if all(moved) else MEAN_SHIFTED if moved[0] else SCALE_SHIFTED
    # what looks shifted and is not significant is neither a shift nor its absence
    looks = mean.looks >= ENOUGH or size.looks >= ENOUGH
    return SAME if _could_tell(record, shift_se) and not looks else TOO_FEW


def stores_statistics(record: LayerRecord) -> bool:
    """Whether some channel has a finite running mean and variance."""
    if record.running_mean is None or record.running_var is None:
        return False
    return bool((np.isfinite(record.running_mean) & np.isfinite(record.running_var)).any())


def never_updated(record: LayerRecord) -> bool:
    """Whether the running statistics hold exactly their initial values, 0 and 1, in every channel."""
    if record.running_mean is None or record.running_var is None:
        return False
    return bool((record.running_mean == 0).all() and (record.running_var == 1).all())


def _could_tell(record: LayerRecord, shift_se: Array) -> bool:
    """Whether a change of visible size would be two standard errors, so far as these depend on the sample.

    The noise of the running statistics is left out: more samples would not make it smaller.
    """
    in_mean, in_scale = dependence.of_mean(record), dependence.of_log_variance(record)
    of_mean = median(sampling_part(record, in_mean, shift.times_in_training(record)) * shift_se)
    of_scale = median(sampling_part(record, in_scale) * scale.relative_error(record).se)
    return _n_images(record) >= FEWEST and of_mean <= VISIBLE_SHIFT / 2 and of_scale <= VISIBLE_SCALE / 2


def _n_images(record: LayerRecord) -> float:
    """Samples that some channel saw."""
    return float(record.pre_images.n.max(initial=0))
