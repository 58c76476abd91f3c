"""How often a channel's output is positive, which is what a ReLU after it would pass on."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns, Paint
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array, ratio

COLUMNS = (
    Column(
        "fires",
        "Measured share of outputs of the norm that are positive.",
        "share of y > 0",
        "0 to 1",
        rank=1,
        paint=Paint("activity", "share of positive outputs", "mako", "share"),
    ),
    Column(
        "fires_median",
        "Half of the channels are positive less often than this.",
        "median fires",
        "0 to 1",
        table="layers",
    ),
    Column(
        "never_positive",
        "Channels whose output was never positive on these data.",
        "count of fires = 0",
        "channels",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Share of finite outputs above zero; NaN where there was no output."""
    return {"fires": ratio(record.n_positive, record.post.n)}


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """Median share, and the number of channels that were never positive."""
    fires = (channels or channel_columns(record))["fires"]
    return {"fires_median": median(fires), "never_positive": float(np.sum(fires == 0))}
