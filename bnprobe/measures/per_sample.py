"""The statistics that layer, instance, group and RMS norms compute for every sample."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats import Moments

BA = "Ba, Kiros & Hinton 2016, arXiv:1607.06450"

COLUMNS = (
    Column(
        "own_mean",
        "Mean over samples of the mean that the norm subtracts.",
        "mean of μₙ",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_mean_sd",
        "Standard deviation of that mean from sample to sample.",
        "std of μₙ",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_sd",
        "Typical standard deviation that the norm divides by (root mean square for RMS norm).",
        "exp(½ mean of log(σₙ² + eps))",
        "input",
        BA,
        "layers",
    ),
    Column(
        "own_log_var_sd",
        "Standard deviation of the log of that variance from sample to sample: 0.1 is about 5% of the divisor.",
        "std of log(σₙ² + eps)",
        "",
        BA,
        "layers",
    ),
    Column(
        "own_groups",
        "Groups of channels, each with a mean and variance of its own; NaN for norms that use those of the batch.",
        table="layers",
    ),
    Column(
        "mean_energy",
        "Share of the inputs' energy in the means that layer norm removes and RMS norm leaves in.",
        "Σμₙ² / Σ(μₙ² + σₙ²), sums over samples",
        "0 to 1",
        "RMSNorm: Zhang & Sennrich 2019, arXiv:1910.07467",
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
        "own_groups": float(len(record.own_mean.mean)),
        "mean_energy": _mean_energy(record.own_mean, record.pre),
    }


def _mean_energy(own_mean: Moments, pre: Moments) -> float:
    """Share of the mean square of all values that their groups' means account for.

    Exact, from sums: mu^2 + sigma^2 is the mean square of a group's values, so its mean over samples is the
    mean square over everything. Samples with large values count for more than in a mean of ratios.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # 0 / 0 of a layer of zeros
        of_means = np.mean(own_mean.var_population + own_mean.mean_seen**2)
        of_values = np.mean(pre.var_population + pre.mean_seen**2)
        return float(of_means / of_values)
