"""Whether a few samples make up the discrepancy: one batch that was prepared otherwise, a broken file, a burst of noise.

Moments over all samples then describe neither these few nor the others, and no cause that acts on every sample can be read
from them. Let e be the mean square of one sample's values about the running mean. Where a share f of the samples has e₁ and
the others have what the running statistics say, v, the mean of e exceeds v by f (e₁ − v) and its variance over samples is
f (1 − f) (e₁ − v)², so that

    f = excess² / (excess² + variance)
"""

from __future__ import annotations

import numpy as np

from bnprobe.recording import BATCH, LayerRecord

FEWEST = 8
"""Samples from which a few of them can be told."""

FOUR_TIMES = 4.0
"""The running variance, eps in both: what the mean square must be in most channels. The share of a smaller excess is not
known well enough."""

FEW = 0.25
"""Share of the samples that are few. Of Gaussian samples of one value each, all of them larger, f is a third."""


def few(record: LayerRecord) -> float:
    """Share of the samples that makes up what exceeds the running variance, of the typical channel; NaN where they are
    not few."""
    images = record.pre_images
    if record.pools != BATCH or record.running_mean is None or record.running_var is None:
        return float("nan")
    n = images.n
    with np.errstate(all="ignore"):
        about = images.about(record.running_mean)
        excess = about.b - record.running_var
        share = excess**2 / (excess**2 + about.bb / n)
        larger = (about.b + record.eps) / (record.running_var + record.eps) > FOUR_TIMES
    known = larger & (n >= FEWEST) & np.isfinite(share)
    if not 2 * known.sum() > record.n_channels:
        return float("nan")
    typical = float(np.median(share[known]))
    return typical if typical <= FEW else float("nan")
