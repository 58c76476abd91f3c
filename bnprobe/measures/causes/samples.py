"""Whether a few samples make up the discrepancy: one batch that was prepared otherwise, a broken file, a burst of noise.

Moments over all samples then describe neither these few nor the others, and no cause that acts on every sample can be read
from them. Let e be the mean square of one sample's values about the running mean. Where a share f of the samples makes up
nearly all of it, its mean over samples is f times theirs, and its mean square f times that of theirs:

    f = (mean of e)² / mean of e²
"""

from __future__ import annotations

import numpy as np

from bnprobe.recording import BATCH, LayerRecord

FEWEST = 8
"""Samples from which a few of them can be told."""

FOUR_TIMES = 4.0
"""The running variance, eps in both: what the mean square must be in most channels, for few to make up nearly all."""

FEW = 0.25
"""Share of the samples that are few. Of Gaussian samples of one value each, all of them larger, f is a third."""


def few(record: LayerRecord) -> float:
    """Share of the samples that makes up inputs larger than the running variance says, of the typical channel; NaN where
    they are not few."""
    images = record.pre_images
    if record.pools != BATCH or record.running_mean is None or record.running_var is None:
        return float("nan")
    n = images.n
    with np.errstate(all="ignore"):
        about = images.about(record.running_mean)
        share = about.b**2 / (about.b**2 + about.bb / n)
        larger = (about.b + record.eps) / (record.running_var + record.eps) > FOUR_TIMES
    known = larger & (n >= FEWEST) & np.isfinite(share)
    if not 2 * known.sum() > record.n_channels:
        return float("nan")
    typical = float(np.median(share[known]))
    return typical if typical <= FEW else float("nan")
