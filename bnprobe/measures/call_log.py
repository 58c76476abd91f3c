"""The circumstances of the calls: modes, gradients, the smallest call, and how far the running statistics moved."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import CallLog, LayerRecord

COLUMNS = (
    Column(
        "learns",
        "Which of γ and β require a gradient: both, γ, β or none; empty where this is not known.",
        table="layers",
    ),
    Column(
        "n_calls_learning",
        "Calls in passes that compute gradients; NaN where it was not recorded.",
        table="layers",
    ),
    Column(
        "n_calls_model_training",
        "Calls while the model as a whole was in train mode; NaN where it was not recorded.",
        table="layers",
    ),
    Column("n_ranks", "Processes that train together; 1 for a single one.", table="layers"),
    Column(
        "fewest_values",
        "Values behind one mean and variance in the smallest call that did not use running statistics.",
        "samples × positions (batch norm), positions × channels of a group (instance, group norm), channels (layer norm)",
        "values",
        "https://github.com/zhanghang1989/ResNeSt/issues/46",
        "layers",
    ),
    Column("n_calls_labeled", "Calls with labels on two samples or more.", table="layers"),
    Column("n_calls_one_class", "Calls with labels whose samples were all of one class.", table="layers"),
    Column(
        "n_calls_in_order",
        "Calls with labels none of which was below the largest of such a call before.",
        table="layers",
    ),
    Column(
        "n_learned_in_eval",
        "Times that γ or β had changed since the previous call, which computed gradients in eval mode.",
        table="layers",
    ),
    Column("fewest_call", "Which of the layer's calls that was, counted from 0.", table="layers"),
    Column("fewest_images", "Samples in that call.", table="layers"),
    Column(
        "first_nonfinite",
        "The first of the layer's calls, counted from 0, whose input was not finite; NaN where none was, or on a GPU.",
        table="layers",
    ),
    Column(
        "n_updates",
        "By how much num_batches_tracked grew during the recording, over all calls of the layer.",
        table="layers",
    ),
    Column(
        "memory_moved",
        "Distance that the running means moved during the recording (root mean square).",
        "√(mean of (μ after − μ before)² / (σ² + eps))",
        "running σ",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float | str]:
    """The call log in columns; NaN and an empty word where none was kept."""
    call_log, missing = record.call_log, float("nan")
    if call_log is None:
        return {column.name: "" if column.name == "learns" else missing for column in COLUMNS}
    return {
        "learns": _learns(call_log),
        "n_calls_learning": call_log.n_calls_learning,
        "n_calls_model_training": call_log.n_calls_model_training,
        "n_ranks": call_log.n_ranks,
        "fewest_values": _number(call_log.fewest_values),
        "n_calls_labeled": _number(call_log.n_calls_labeled),
        "n_calls_one_class": _number(call_log.n_calls_one_class),
        "n_calls_in_order": _number(call_log.n_calls_in_order),
        "n_learned_in_eval": _number(call_log.n_learned_in_eval),
        "fewest_call": _number(call_log.fewest_call),
        "fewest_images": _number(call_log.fewest_images),
        "first_nonfinite": _number(call_log.first_nonfinite),
        "n_updates": _number(call_log.n_updates),
        "memory_moved": _means_moved(record, call_log),
    }


def _learns(call_log: CallLog) -> str:
    there = {"γ": call_log.gamma_learns, "β": call_log.beta_learns}
    if all(learns is None for learns in there.values()):
        return ""
    names = [name for name, learns in there.items() if learns]
    return "both" if len(names) == 2 else names[0] if names else "none"


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _means_moved(record: LayerRecord, call_log: CallLog) -> float:
    """Root mean square over channels; NaN without running statistics, or where none is finite."""
    before, after = record.running_mean, call_log.running_mean_after
    if before is None or after is None or record.running_var is None:
        return float("nan")
    with np.errstate(all="ignore"):
        step = (after - before) / np.sqrt(record.running_var + record.eps)
        known = step[np.isfinite(step)]
        return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
