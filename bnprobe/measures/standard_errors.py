"""How certain a comparison with the running statistics can be: samples count, not positions, plus the statistics' noise.

Positions of one sample are correlated, so an error is the variance over samples of a sample's value, divided by
their number. Rows of one sample are correlated as well (the steps of a sequence, the regions of a photograph, the
patches of attention), so standard errors use samples as units. The noise of the running statistics adds to it: an
exponential average over batches whose size a checkpoint does not keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bnprobe.measures.dependence import Worth
from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats.jackknife import Estimate
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import adjusted, two_sided

TRAINING_BATCH = 32
"""Images per device in torchvision's reference recipes: assumed for the noise of the running statistics where nobody
says, because no checkpoint does. With a larger true batch `shift_z` and `scale_z` are cautious: they spread by 0.8 at 128
and 1,000 images, where nothing moved. With a smaller one they are bold: by 1.3 at 16, 1.7 at 8, 3.2 at 2. Each device of
a DataParallel, and of a DDP without SyncBatchNorm, has a batch of its own, which is the one that counts."""


def by_sample(recording: Recording) -> tuple[LayerRecord, ...]:
    """The sites, none with more samples than were given to the model; their means and variances stay.

    The variance between rows over the number of samples is an upper bound of the squared error of the mean,
    whatever the correlation inside a sample (Cauchy-Schwarz). Sites that were also called outside a pass of
    the whole model, whose samples nobody counted, stay as they are.
    """
    return tuple(_by_sample(record, recording) for record in recording.layers)


def _by_sample(record: LayerRecord, recording: Recording) -> LayerRecord:
    about = recording.about
    if not 0 < about.n_images < record.n_images or record.n_calls > about.n_forwards:
        return record
    return replace(record, n_images=about.n_images, pre_images=record.pre_images.at_most(about.n_images))


def training_batch(record: LayerRecord) -> int:
    """Samples per batch in training: as the user says, else as assumed."""
    return record.training_batch or TRAINING_BATCH


def n_running(record: LayerRecord) -> float:
    """Samples that the running statistics are worth: their noise is that of a mean over so many.

    An exponential average with momentum m has the variance m/(2 - m) of one batch's value; momentum
    None averages all batches tracked. Follows from the geometric weights m(1 - m)^k.
    """
    tracked = record.n_batches_tracked or 0
    if record.momentum is None or np.isnan(record.momentum):
        return float((tracked or 19) * training_batch(record))
    m = min(max(record.momentum, 1e-12), 1.0)
    return (2 - m) / m * training_batch(record)


def error_of(
    variance: Array, record: LayerRecord, worth: Worth, in_training: Array | float = 1.0
) -> Estimate:
    """Standard error of the difference between a mean over the samples seen and its running value; shape (C,).

    `variance` is that of one sample's value, over the samples seen, which are `worth` so many; in training it was
    `in_training` times that. Degrees by Satterthwaite 1946, and no more than `variance` has.
    """
    seen, stored = variance / worth.n, variance * in_training / n_running(record)
    degrees = record.pre_images.n - 1
    total = seen + stored
    with np.errstate(invalid="ignore", divide="ignore"):
        # of shares, since the square of a large variance has no float64
        both = 1 / ((seen / total) ** 2 / worth.degrees + (stored / total) ** 2 / degrees)
    return Estimate(np.sqrt(total), np.fmin(both, degrees))


def sampling_part(record: LayerRecord, worth: Worth, in_training: Array | float = 1.0) -> Array:
    """Share of `error_of` that more samples would remove; shape (C,)."""
    running: float = n_running(record)
    return np.sqrt(running / (running + worth.n * in_training))


def p_values(z: Array, degrees: Array) -> Array:
    """Chance of a z as far from 0 or farther where nothing moved; shape (C,).

    By Student's t; NaN where z is not finite or no degree of freedom is left.
    """
    return two_sided(np.where(np.isfinite(z), z, np.nan), degrees)


TESTS = ("shift", "scale")
"""What has a column of p and one of q."""


def adjust(sites: Sequence[dict[str, Any]]) -> None:
    """Put q in the columns of every site: over all channels of all sites, means and scales, as one family of tests.

    A page speaks of the whole network at once. With a family per norm and per test, 55 norms that match their data
    had a channel with q < 0.01 somewhere in half to two thirds of recordings.
    """
    keys = [(columns, name) for columns in sites for name in TESTS]
    p = [columns[f"{name}_p"] for columns, name in keys]
    if not p:
        return
    parts = np.split(adjusted(np.concatenate(p)), np.cumsum([len(part) for part in p])[:-1])
    for (columns, name), q in zip(keys, parts, strict=True):
        columns[f"{name}_q"] = q
