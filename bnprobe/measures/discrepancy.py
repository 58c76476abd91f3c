"""How far a norm's inputs are from its running statistics, in mean and scale together, and how young these are."""

from __future__ import annotations

from bnprobe.measures import causes
from bnprobe.measures.causes.sites import initial_weight
from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord

COLUMNS = (
    Column(
        "discrepancy",
        "How far the inputs are from the running statistics, in mean and std together; 0 if they match.",
        "√(mean of d² + e²), d = difference of means / pooled std, e = ½ ln((pre_var + eps) / (running_var + eps))",
        "standard deviations",
        table="layers",
    ),
    Column(
        "initial_weight",
        "Weight that the initial 0 and 1 still have in the running statistics; NaN where updates were not counted.",
        "(1 − momentum)^n_batches_tracked",
        "0 to 1",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """NaN without running statistics, or where they were never updated."""
    return {"discrepancy": causes.discrepancy(record), "initial_weight": initial_weight(record)}
