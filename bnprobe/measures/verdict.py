"""The verdict on a layer: do its inputs match the running statistics?

A verdict needs significance and size: with a thousand samples every difference is significant, and with eight
any difference may be chance. "Same" is a finding as well: a visible difference is ruled out, and was not only not found.
"""

from __future__ import annotations

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
from bnprobe.stats.significance import SIGNIFICANT, upper_quantile

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
        "Whether the inputs match the running statistics. Same: no third of the channels is visibly off.",
        "shifted: mean_moved or scale_moved ≥ 1/3; same: in over 2/3 of channels |shift| + t₉₅ · error < "
        f"{VISIBLE_SHIFT} and |ln ratio| < {VISIBLE_SCALE}, the typical error of ln ratio at most {VISIBLE_SCALE / 2}",
        source="Schneider et al. 2020, arXiv:2006.16971",
        table="layers",
    ),
    Column(
        "mean_moved",
        "Share of channels whose mean differs visibly and beyond sampling error.",
        f"share of shift_q < {SIGNIFICANT} and |shift| ≥ {VISIBLE_SHIFT}, below {FEWEST} samples {OVERWHELMING} times that",
        "0 to 1",
        table="layers",
    ),
    Column(
        "scale_moved",
        "Share of channels whose scale differs visibly and beyond sampling error.",
        f"share of scale_q < {SIGNIFICANT} and |ln ratio| ≥ {VISIBLE_SCALE} (ratio as in scale_z), below {FEWEST} samples "
        f"{OVERWHELMING} times that",
        "0 to 1",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord, columns: Columns) -> dict[str, float | str]:
    """The verdict, and the shares of channels that it rests on (NaN where nothing could be tested)."""
    times = OVERWHELMING if _saw_few(record) else 1
    mean = _moved(columns["shift"], times * VISIBLE_SHIFT, columns["shift_q"])
    size = _moved(scale.log_ratio(record), times * VISIBLE_SCALE, columns["scale_q"])
    return {
        "verdict": _verdict(record, mean, size, _near(record, columns)),
        "mean_moved": mean,
        "scale_moved": size,
    }


def _moved(size: Array, visible: float, q: Array) -> float:
    """Share of the tested channels that differ significantly and visibly."""
    tested = ~np.isnan(q)
    if not tested.any():
        return float("nan")
    return float(np.mean((np.abs(size[tested]) >= visible) & (q[tested] < SIGNIFICANT)))


def _verdict(record: LayerRecord, mean: float, size: float, near: bool) -> str:
    if not stores_statistics(record):
        return NO_STATISTICS
    if never_updated(record):
        return NEVER_UPDATED
    moved = mean >= ENOUGH, size >= ENOUGH
    if any(moved):
        return BOTH_SHIFTED if all(moved) else MEAN_SHIFTED if moved[0] else SCALE_SHIFTED
    return SAME if near else TOO_FEW


def _near(record: LayerRecord, columns: Columns) -> bool:
    """Whether a visible shift is ruled out, at 95%, in all but a third of the channels, and a change of scale not seen.

    A scale is not seen to change where it looks so in less than a third, and a visible change would be two errors: to
    rule it out takes a thousand samples at late norms. The noise of the running statistics is left out: they are what
    the norm uses, and more samples would not change them.
    """
    if _saw_few(record):
        return False
    in_mean, in_scale = dependence.of_mean(record), dependence.of_log_variance(record)
    of_mean = sampling_part(record, in_mean, shift.times_in_training(record)) * columns["shift_se"]
    of_scale = median(sampling_part(record, in_scale) * scale.relative_error(record).se)
    return (
        _rules_out(columns["shift"], upper_quantile(in_mean.degrees) * of_mean, VISIBLE_SHIFT)
        and _rules_out(scale.log_ratio(record), np.zeros(record.n_channels), VISIBLE_SCALE)
        and of_scale <= VISIBLE_SCALE / 2
    )


def _rules_out(size: Array, error: Array, visible: float) -> bool:
    bound = np.abs(size) + error
    known = bound[~np.isnan(bound)]
    return known.size > 0 and bool(np.mean(known >= visible) < ENOUGH)


def stores_statistics(record: LayerRecord) -> bool:
    """Whether some channel has a finite running mean and variance."""
    if record.running_mean is None or record.running_var is None:
        return False
    return bool((np.isfinite(record.running_mean) & np.isfinite(record.running_var)).any())


def never_updated(record: LayerRecord) -> bool:
    """Whether the running statistics hold exactly their initial values, 0 and 1, in every channel.

    Where no batch was counted the 1 is enough: a bias that was moved into the running means leaves it.
    """
    if record.running_mean is None or record.running_var is None:
        return False
    initial_mean = record.n_batches_tracked == 0 or (record.running_mean == 0).all()
    return bool(initial_mean and (record.running_var == 1).all())


def _saw_few(record: LayerRecord) -> bool:
    """Whether no channel saw enough samples."""
    return not (record.pre_images.n >= FEWEST).any()
