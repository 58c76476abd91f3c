"""Data against running statistics: how far the inputs of this run are from those of training.

The mean, with its certainty, and distances that take mean and scale together; `scale` has the scale's.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures import dependence
from bnprobe.measures.columns import Column, Columns, Paint, signed
from bnprobe.measures.shape import median
from bnprobe.measures.standard_errors import TRAINING_BATCH, error_of, n_running, p_values, training_batch
from bnprobe.measures.stored_variance import var_as_stored
from bnprobe.recording import LayerRecord
from bnprobe.stats.jackknife import Estimate
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import SIGNIFICANT

_LI = "Li et al. 2016, arXiv:1603.04779"

COLUMNS = (
    Column(
        "shift",
        "Distance of the measured mean from the running mean, in running standard deviations.",
        "(pre_mean − running_mean) / √(running_var + eps)",
        "running σ",
        _LI,
        rank=1,
        paint=signed("match with training", "shift of the mean, in running σ", 1, against_running=True),
    ),
    Column(
        "scale_ratio",
        "Measured standard deviation relative to the running one: below 1 the inputs vary less than in training.",
        "√(pre_var / (running_var + eps)); for instance norms with the mean variance within a sample for pre_var",
        "",
        _LI,
        rank=1,
        paint=Paint(
            "match with training",
            "standard deviation, measured / running",
            "diverging",
            "log",
            1,
            (0.5, 2),
            True,
        ),
    ),
    Column(
        "kl",
        "KL divergence of the data from the running statistics, both taken as Gaussians: 0 when they match.",
        "½(r² + d² − 1) − ln r, with d = shift, r = scale_ratio",
        "nats",
        "Kullback & Leibler 1951",
        rank=3,
        paint=Paint(
            "match with training",
            "KL divergence of measured from running",
            "rocket",
            "log",
            None,
            (1e-4, 10),
            True,
        ),
    ),
    Column(
        "w2",
        "Distance of the data from the running statistics, both taken as Gaussians (2-Wasserstein): 0 when they match.",
        "√(d² + (r − 1)²), with d = shift, r = scale_ratio",
        "running σ",
        "Dowson & Landau 1982",
    ),
    Column(
        "shift_se",
        "Standard error of the shift, counting samples, not positions or rows.",
        "√(V/n + V·max(1, running_var / pre_var)/n_running) / √(running_var + eps), V = variance of a sample's mean, "
        "n = n_images, or fewer where error_from is folds and they differ more than independent samples",
        "running σ",
        "clustered by sample, all rows of a sample as one; right if samples, or with folds whole batches, are independent",
        rank=2,
    ),
    Column("shift_z", "The shift in standard errors.", "shift / shift_se"),
    Column(
        "shift_p",
        "Chance of such a shift or a larger one if the mean did not move; of this channel alone, not adjusted.",
        "two-sided p of shift_z, Student's t with n_images − 1 degrees, fewer by folds",
        "0 to 1",
    ),
    Column(
        "shift_q",
        "False discovery rate of the shift: of all channels with at most this q, on average at most this share is noise.",
        "shift_p and scale_p of all channels of all layers, adjusted together (Benjamini-Hochberg)",
        "0 to 1",
        "Benjamini & Hochberg 1995",
        rank=2,
    ),
    Column(
        "shift_rms",
        "Typical shift of the layer's channels.",
        "√(mean of shift²)",
        "running σ",
        table="layers",
    ),
    Column(
        "var_ratio_median",
        "Typical measured variance relative to the running variance, eps included in both: 1 when they match.",
        "median (pre_var + eps) / (running_var + eps); for instance norms as in scale_ratio",
        table="layers",
    ),
    Column(
        "kl_median",
        "Typical KL divergence of the data from the running statistics.",
        "median kl",
        "nats",
        table="layers",
    ),
    Column(
        "w2_rms",
        "Typical distance of the data from the running statistics, mean and scale together.",
        "√(mean of w2²)",
        "running σ",
        table="layers",
    ),
    Column(
        "training_batch",
        f"Samples per batch in training, for the noise of the running statistics: as given, else {TRAINING_BATCH}, assumed.",
        unit="samples",
        table="layers",
    ),
    Column(
        "n_running",
        "Samples that the running statistics are worth: their noise is that of a mean over so many.",
        "(2 − m)/m · training_batch for momentum m; without momentum, all batches",
        "samples",
        table="layers",
    ),
    Column(
        "shifted_share",
        "Share of channels whose mean differs beyond sampling error (false discovery rate 1%), by however little.",
        f"share of shift_q < {SIGNIFICANT}",
        "0 to 1",
        table="layers",
    ),
    Column(
        "scaled_share",
        "Share of channels whose scale differs beyond sampling error (false discovery rate 1%), by however little.",
        f"share of scale_q < {SIGNIFICANT}",
        "0 to 1",
        table="layers",
    ),
)


_NAMES = ("shift", "scale_ratio", "kl", "w2", "shift_se", "shift_z", "shift_p")


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The shift, its certainty and the distances, shape (C,) each; NaN without running statistics.

    Without `shift_q`, which takes the channels of all layers: see `standard_errors.adjust`.
    """
    if record.running_mean is None or record.running_var is None:
        return dict.fromkeys(_NAMES, np.full(record.n_channels, np.nan))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        sigma = np.sqrt(record.running_var + record.eps)
        shift = (record.pre.mean_seen - record.running_mean) / sigma
        ratio = np.sqrt(var_as_stored(record)) / sigma
        error = error_of_mean(record)
        se = error.se / sigma
        z = np.where(se > 0, shift / se, np.nan)
        kl = (ratio**2 + shift**2 - 1) / 2 - np.log(ratio)
        w2 = np.hypot(shift, ratio - 1)
    p = p_values(z, error.degrees)
    return dict(zip(_NAMES, (shift, ratio, kl, w2, se, z, p), strict=True))


def error_of_mean(record: LayerRecord) -> Estimate:
    """Of the measured mean less the running mean, in units of the input; shape (C,)."""
    worth, times = dependence.of_mean(record), times_in_training(record)
    return error_of(record.pre_images.var_between, record, worth, times)


def times_in_training(record: LayerRecord) -> Array:
    """Factor by which a sample's mean varied more in training than in this run, 1 at least; shape (C,).

    The running mean has the noise of the data it was made of. Nothing stored says how far the means of those samples lay
    apart, so it is taken that they varied as much more as all values did.
    """
    if record.running_var is None:
        return np.ones(record.n_channels)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = record.running_var / var_as_stored(record)
    return np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0)


def variance_ratio(record: LayerRecord) -> Array:
    """(pre_var + eps) / (running_var + eps), shape (C,); NaN without running statistics.

    With eps in the divisor alone, as in scale_ratio, data just like those of training would seem to vary less.
    """
    if record.running_mean is None or record.running_var is None:
        return np.full(record.n_channels, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (var_as_stored(record) + record.eps) / (record.running_var + record.eps)
        return np.where(record.running_var + record.eps >= 0, ratio, np.nan)


def layer_columns(record: LayerRecord, columns: Columns) -> dict[str, float]:
    """What the channels say together; NaN for layers without running statistics."""
    with np.errstate(over="ignore"):
        return {
            "shift_rms": _root_mean_square(columns["shift"]),
            "var_ratio_median": median(variance_ratio(record)),
            **_worth(record),
            "kl_median": median(columns["kl"]),
            "w2_rms": _root_mean_square(columns["w2"]),
            "shifted_share": _share_significant(columns["shift_q"]),
            "scaled_share": _share_significant(columns["scale_q"]),
        }


def _share_significant(q: Array) -> float:
    """Of the channels that were tested; NaN where none was."""
    tested = q[~np.isnan(q)]
    return float(np.mean(tested < SIGNIFICANT)) if tested.size else float("nan")


def _worth(record: LayerRecord) -> dict[str, float]:
    """What the errors take the running statistics to be worth; NaN without any."""
    return {
        "training_batch": training_batch(record) if record.has_running else np.nan,
        "n_running": n_running(record) if record.has_running else np.nan,
    }


def _root_mean_square(values: Array) -> float:
    """Of the finite values; NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
