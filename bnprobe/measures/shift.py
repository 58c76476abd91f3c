"""Memory against data: how far the inputs seen now lie from what the running statistics remember.

Pixels of one image are correlated, so every standard error here counts images: the variance of an
image's mean, over images, divided by their number. To it comes the noise of the running mean itself,
an exponential average over batches whose size a checkpoint does not keep.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.measures.shape import median
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

TRAINING_BATCH = 32
"""Images per device in torchvision's reference recipes: assumed for the noise of the running mean,
because no checkpoint says. A larger true batch makes `shift_z` cautious, not bold."""

_LI = "Li et al. 2016, arXiv:1603.04779"

COLUMNS = (
    Column(
        "shift",
        "How far the mean seen now lies from the remembered one, in remembered deviations.",
        "(pre_mean − running_mean) / √(running_var + eps)",
        "remembered σ",
        _LI,
    ),
    Column(
        "scale_ratio",
        "Deviation seen now against the remembered one: below 1 the inputs vary less than in training.",
        "√(pre_var / (running_var + eps))",
        "",
        _LI,
    ),
    Column(
        "kl",
        "Distance of what is seen from what is remembered, both taken as Gaussians: 0 when they agree.",
        "½(r² + d² − 1) − ln r, with d = shift, r = scale_ratio",
        "nats",
        "Kullback & Leibler 1951",
    ),
    Column(
        "shift_se",
        "Standard error of the shift, counting images and not pixels.",
        "√(V/n_images + V/n_running) / √(running_var + eps), V = variance of an image's mean",
        "remembered σ",
        "clustered by image; n_running = (2 − m)/m · 32 for momentum m",
    ),
    Column("shift_z", "The shift in its own standard errors.", "shift / shift_se"),
    Column(
        "shift_q",
        "Chance of calling this channel shifted by mistake, adjusted for testing all channels of the layer.",
        "Benjamini-Hochberg over channels, Student's t with n_images − 1 degrees",
        "0 to 1",
        "Benjamini & Hochberg 1995",
    ),
    Column(
        "shift_rms",
        "Typical shift of the layer's channels.",
        "√(mean of shift²)",
        "remembered σ",
        table="layers",
    ),
    Column(
        "var_ratio_median",
        "Typical variance seen now against the remembered one.",
        "median scale_ratio²",
        table="layers",
    ),
    Column(
        "kl_median",
        "Typical distance of what is seen from what is remembered.",
        "median kl",
        "nats",
        table="layers",
    ),
    Column(
        "shifted_share",
        "Share of channels surely shifted.",
        "share of shift_q < 0.01",
        "0 to 1",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The shift and its certainty, shape (C,) each; NaN for layers without running statistics."""
    missing = np.full(record.n_channels, np.nan)
    if record.running_mean is None or record.running_var is None:
        return dict.fromkeys(("shift", "scale_ratio", "kl", "shift_se", "shift_z", "shift_q"), missing)
    with np.errstate(invalid="ignore", divide="ignore"):
        sigma = np.sqrt(record.running_var + record.eps)
        shift = (record.pre.mean_seen - record.running_mean) / sigma
        ratio = np.sqrt(record.pre.var_population) / sigma
        se = (
            np.sqrt(record.pre_images.var_between * (1 / record.pre_images.n + 1 / _n_running(record)))
            / sigma
        )
        z = np.where(se > 0, shift / se, np.nan)
        kl = (ratio**2 + shift**2 - 1) / 2 - np.log(ratio)
    q = _adjusted(z, record.pre_images.n)
    return {"shift": shift, "scale_ratio": ratio, "kl": kl, "shift_se": se, "shift_z": z, "shift_q": q}


def _n_running(record: LayerRecord) -> float:
    """Images that the running mean is worth: its noise is that of a mean over so many.

    An exponential average with momentum m has the variance m/(2 - m) of one batch's mean; momentum
    None averages all batches tracked. Follows from the geometric weights m(1 - m)^k.
    """
    tracked = record.n_batches_tracked or 0
    if record.momentum is None:
        return float(max(tracked, 1) * TRAINING_BATCH) if tracked else 19.0 * TRAINING_BATCH
    m = min(max(record.momentum, 1e-12), 1.0)
    return (2 - m) / m * TRAINING_BATCH


def _adjusted(z: Array, n_images: Array) -> Array:
    """Two-sided p values of z, adjusted over the channels that have one."""
    from bnprobe.scipy_stats import stats

    tested = np.isfinite(z) & (n_images > 1)
    q = np.full(z.shape, np.nan)
    if tested.any():
        p = 2 * stats.t.sf(np.abs(z[tested]), n_images[tested] - 1)
        q[tested] = stats.false_discovery_control(np.clip(p, 0, 1))
    return q


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """What the channels say together; NaN for layers without running statistics."""
    columns = channel_columns(record)
    shift, q = columns["shift"], columns["shift_q"]
    with np.errstate(over="ignore"):
        known = shift[np.isfinite(shift)]
        return {
            "shift_rms": float(np.sqrt(np.mean(known**2))) if known.size else float("nan"),
            "var_ratio_median": median(columns["scale_ratio"] ** 2),
            "kl_median": median(columns["kl"]),
            "shifted_share": float(np.mean(q[~np.isnan(q)] < 0.01)) if (~np.isnan(q)).any() else float("nan"),
        }
