"""The statistics that layer, instance, group and RMS norms compute themselves, for every sample anew."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord

BA = "Ba, Kiros & Hinton 2016, arXiv:1607.06450"

COLUMNS = (
    Column(
        "own_mean",
        "Mean, over samples, of the mean that the norm takes out.",
        "mean of μₙ",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_mean_sd",
        "How much that mean varies from sample to sample.",
        "deviation of μₙ",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_sd",
        "Typical deviation that the norm divides by (root mean square for RMS norm).",
        "exp(½ mean of log(σₙ² + eps))",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_log_var_sd",
        "How much the log of that variance varies from sample to sample: 0.1 is about 5 % in the deviation.",
        "deviation of log(σₙ² + eps)",
        "",
        BA,
        "layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """Typical values over groups; NaN for norms that use the batch or running statistics."""
    if record.own_mean is None or record.own_log_var is None:
        return {column.name: float("nan") for column in COLUMNS}
    return {
        "own_mean": median(record.own_mean.mean_seen),
        "own_mean_sd": median(np.sqrt(record.own_mean.var_population)),
        "own_sd": float(np.exp(median(record.own_log_var.mean_seen) / 2)),
        "own_log_var_sd": median(np.sqrt(record.own_log_var.var_population)),
    }
