"""Scale against the running variance: how certain it is that the inputs vary differently than in training.

The error counts samples: that of a variance is the spread, over samples, of a sample's mean squared
distance from the channel's mean. The test is of the logarithm, whose error does not depend on the scale.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures import dependence
from bnprobe.measures.columns import Column
from bnprobe.measures.standard_errors import error_of, p_values, sampling_part, training_batch
from bnprobe.measures.stored_variance import var_as_stored
from bnprobe.recording import BATCH, LayerRecord
from bnprobe.stats.jackknife import Estimate
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import without_skewness

COLUMNS = (
    Column(
        "scale_se",
        "Standard error of the scale ratio, counting samples, not positions.",
        "scale_ratio · √(S/n + S/n_running) / (2 pre_var), S = variance of a sample's mean of (x − pre_mean)²",
        "",
        "clustered by sample, delta method; n and n_running as for shift_se",
        rank=5,
    ),
    Column(
        "scale_z",
        "Log of the scale ratio in standard errors; eps is on both sides, so it has no effect.",
        "½ ln((v + eps) / (r + eps)) · scale_ratio / scale_se; v, r: pre_var and running_var, corrected for bias",
    ),
    Column(
        "scale_p",
        "Chance of such a scale ratio or one farther from 1 if the scale did not change; of this channel alone.",
        "two-sided p of scale_z, Student's t with n_images − 1 degrees, fewer by folds; below 0 of z + a(1 + z²) + a²z³/3, "
        "a = the error of ln ratio by samples², over that with the running statistics' noise",
        "0 to 1",
        "Hall 1992, J. R. Stat. Soc. B 54, 221, with the skewness of a lognormal: rather large than small",
    ),
    Column(
        "scale_q",
        "False discovery rate of the change of scale: of all channels with at most this q, on average at most this share "
        "is noise.",
        "shift_p and scale_p of all channels of all layers, adjusted together (Benjamini-Hochberg)",
        "0 to 1",
        "Benjamini & Hochberg 1995",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The certainty of the scale, shape (C,) each; NaN where undefined. `scale_q` comes with `shift_q`."""
    missing = np.full(record.n_channels, np.nan)
    columns = dict.fromkeys(("scale_se", "scale_z", "scale_p"), missing)
    if record.running_var is not None and record.running_mean is not None:
        error, degrees = relative_error(record)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.where(error > 0, log_ratio(record) / error, np.nan)
            spread = np.sqrt(var_as_stored(record) / (record.running_var + record.eps)) * error
            # the error of what was measured, squared, over that of the difference
            skewness = error * sampling_part(record, dependence.of_log_variance(record)) ** 2
        p = p_values(without_skewness(z, skewness), degrees)
        columns = {"scale_se": spread, "scale_z": z, "scale_p": p}
    return columns


def relative_error(record: LayerRecord) -> Estimate:
    """Standard error of the log of the std, half that of the log of the variance; shape (C,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = record.pre_images.var_of_square_about(record.pre.mean)
        error = error_of(spread, record, dependence.of_log_variance(record))
        return Estimate(error.se / (2 * record.pre.var_population), error.degrees)


def log_ratio(record: LayerRecord) -> Array:
    """Log of the measured std relative to the running one, as the norm sees them; shape (C,).

    Both are estimates of a population's variance v from n values in N samples that differ in their means
    by the variance V. The measured one has the expectation v - V/N. A batch of B samples, whose unbiased
    variance training averages, has (v - V/B) n/(n - 1). An instance norm's is that within a sample, in both.
    """
    if record.running_var is None:
        return np.full(record.n_channels, np.nan)
    n_images = record.pre_images.n
    if record.pools != BATCH:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log((var_as_stored(record) + record.eps) / (record.running_var + record.eps)) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        between = record.pre_images.var_between
        seen = record.pre.var_population + between / n_images
        batch = training_batch(record)
        n = batch * record.pre.n / n_images
        left = 1 - between / seen / batch  # 0 in a batch of 1 sample with one value, which has no variance
        stored = record.running_var * (1 - 1 / n) / np.where(left > 0, left, np.nan)
        return np.log((seen + record.eps) / (stored + record.eps)) / 2
