"""How far apart the ranks of a process group were: in what they were fed, and in their running statistics."""

from __future__ import annotations

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord

COLUMNS = (
    Column(
        "ranks_apart",
        "Distance of the means of the inputs of two ranks, of the pair that is farthest apart (root mean square); NaN "
        "without ranks.",
        "√(mean of (mean at one − mean at the other)² / variance within both)",
        "σ of the input",
        table="layers",
    ),
    Column(
        "ranks_apart_chance",
        "What that is on average for samples of one kind, by the spread of the means of samples.",
        unit="σ of the input",
        table="layers",
    ),
    Column("ranks_apart_of", "Which ranks these are.", table="layers"),
    Column(
        "ranks_stored_apart",
        "Distance of the running statistics with which two ranks began, of the pair farthest apart; NaN without ranks.",
        "√(mean of (difference of running means)² / (σ² + eps) + (log of the ratio of running σ)²)",
        "running σ",
        table="layers",
    ),
    Column("ranks_stored_apart_of", "Which ranks these are.", table="layers"),
)


def layer_columns(record: LayerRecord) -> dict[str, float | str]:
    """The gap of the ranks in columns."""
    gap, missing = record.ranks, float("nan")
    if gap is None:
        return {column.name: "" if column.name.endswith("_of") else missing for column in COLUMNS}
    return {
        "ranks_apart": gap.inputs,
        "ranks_apart_chance": gap.inputs_chance,
        "ranks_apart_of": gap.inputs_of,
        "ranks_stored_apart": gap.stored,
        "ranks_stored_apart_of": gap.stored_of,
    }
