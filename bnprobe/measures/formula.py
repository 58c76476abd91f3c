"""Whether a norm computes its formula, with how many digits, and on rows that say something."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.recording.terms import EPSILONS
from bnprobe.stats.moments import Array

COLUMNS = (
    Column(
        "mean_in_sds",
        "Size of the mean that the norm subtracts, in standard deviations, stored or of the inputs: the larger ones.",
        "|mean| / √(max(var, running var) + eps)",
        "standard deviations",
    ),
    Column(
        "mean_in_sds_max",
        "Largest of these means over the channels; of norms that compute statistics of their own, that of a typical sample.",
        "max |mean| / √(max(var, running var) + eps)",
        "standard deviations",
        table="layers",
    ),
    Column(
        "rounding_step",
        "Distance of neighboring numbers of the input's type at its mean, in its standard deviations.",
        "machine epsilon · mean_in_sds_max",
        "standard deviations",
        table="layers",
    ),
    Column(
        "input_dtype", "Type of the input's numbers at the first call; empty where unknown.", table="layers"
    ),
    Column(
        "parameter_dtype",
        "Type of γ, or of β where there is no γ; empty where it is not known.",
        table="layers",
    ),
    Column(
        "formula_fits",
        "Whether the output at the first call is what the formula gives, but for rounding: 1 or 0; NaN where unchecked.",
        table="layers",
    ),
    Column(
        "computes_instead",
        "Where it is not: what gives the output instead; empty where nothing that was tried does.",
        table="layers",
    ),
    Column(
        "mismatch_left",
        "Largest difference between the output and the formula with these changes, over the largest output.",
        "max |y − ŷ| / max |y|",
        table="layers",
    ),
    Column(
        "constant_rows",
        "Share of the means and variances of single samples at the first call that were taken of equal values.",
        "share of variances = 0",
        "0 to 1",
        table="layers",
    ),
    Column(
        "zero_positions",
        "Share of the positions of sequences at the first call that are 0 in all channels, of norms that pool positions.",
        "",
        "0 to 1",
        table="layers",
    ),
    Column(
        "zero_rows",
        "Share of positions at the first call with an output of 0, or β, in all channels although the input varies.",
        "",
        "0 to 1",
        table="layers",
    ),
    Column(
        "saturated_outputs",
        "Share of outputs at the first call that stick at the smallest or largest value.",
        "",
        "0 to 1",
        table="layers",
    ),
    Column(
        "repeated_samples",
        "Share of the samples at the first call that have an equal one, to the last digit, of norms that use their batch.",
        "",
        "0 to 1",
        table="layers",
    ),
    Column(
        "same_samples",
        "Share of the samples at the first call that are all equal, in the largest group of 4 or more; 0 without one.",
        "",
        "0 to 1",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The mean of each channel in its standard deviations, shape (C,); NaN where samples have means of their own."""
    return {"mean_in_sds": _per_channel(record)}


def layer_columns(record: LayerRecord) -> dict[str, float | str]:
    """The largest mean, what it costs, and what the first call showed."""
    far, check = _largest(record), record.output_check
    found: dict[str, float | str] = {
        "mean_in_sds_max": far,
        "rounding_step": far * EPSILONS.get(check.dtype if check else "", EPSILONS["float32"]),
        "input_dtype": check.dtype if check else "",
        "parameter_dtype": record.parameter_dtype,
        "formula_fits": float(check.fits) if check else np.nan,
        "computes_instead": "; ".join(check.deviations) if check else "",
    }
    if check is None:
        return found | dict.fromkeys(
            (
                *("mismatch_left", "constant_rows", "zero_positions", "zero_rows", "saturated_outputs"),
                *("repeated_samples", "same_samples"),
            ),
            np.nan,
        )
    return found | {
        "mismatch_left": np.nan if check.remaining is None else check.remaining,
        "constant_rows": check.constant_rows,
        "zero_positions": check.zero_positions,
        "zero_rows": check.zero_rows,
        "saturated_outputs": check.saturated,
        "repeated_samples": check.repeated,
        "same_samples": check.largest,
    }


def _per_channel(record: LayerRecord) -> Array:
    if record.own_mean is not None or record.pools != "batch" or record.kind == "rms_norm":
        return np.full(record.n_channels, np.nan)
    stored = record.running_var if record.n_calls_running > 0 else None
    var = record.pre.var_population
    if stored is not None:  # of inputs in another unit, far from the running statistics, no digit is lost
        var = np.fmax(var, stored)
    with np.errstate(all="ignore"):
        found: Array = np.abs(record.pre.mean_seen) / np.sqrt(var + record.eps)
    return found


def _largest(record: LayerRecord) -> float:
    far = _per_channel(record)
    if record.own_mean is not None and record.own_log_var is not None and record.kind != "rms_norm":
        with np.errstate(all="ignore"):
            far = np.abs(record.own_mean.mean_seen) / np.exp(record.own_log_var.mean_seen / 2)
    known = far[np.isfinite(far)]
    return float(known.max()) if known.size else float("nan")
