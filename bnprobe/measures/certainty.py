"""How sure a comparison with the memory can be: images counted, not pixels, and the memory's own noise.

Pixels of one image are correlated, so an error is the variance over images of an image's value, divided
by their number. To it comes the noise of the running statistics themselves: an exponential average over
batches whose size a checkpoint does not keep.
"""

from __future__ import annotations

import numpy as np

from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import adjusted, two_sided

TRAINING_BATCH = 32
"""Images per device in torchvision's reference recipes: assumed for the noise of the running statistics,
because no checkpoint says. A larger true batch makes `shift_z` and `scale_z` cautious, not bold."""


def n_running(record: LayerRecord) -> float:
    """Images that the running statistics are worth: their noise is that of a mean over so many.

    An exponential average with momentum m has the variance m/(2 - m) of one batch's value; momentum
    None averages all batches tracked. Follows from the geometric weights m(1 - m)^k.
    """
    tracked = record.n_batches_tracked or 0
    if record.momentum is None:
        return float(max(tracked, 1) * TRAINING_BATCH) if tracked else 19.0 * TRAINING_BATCH
    m = min(max(record.momentum, 1e-12), 1.0)
    return (2 - m) / m * TRAINING_BATCH


def error_of(variance: Array, record: LayerRecord) -> Array:
    """Standard error of the difference between a mean over the images seen and the memory of it; shape (C,).

    `variance` is that of one image's value, over images. The memory was made of images of the same kind.
    """
    return np.sqrt(variance * (1 / record.pre_images.n + 1 / n_running(record)))


def sampling_part(record: LayerRecord) -> Array:
    """Share of `error_of` that more images would take away; shape (C,)."""
    memory: float = n_running(record)
    return np.sqrt(memory / (memory + record.pre_images.n))


def q_values(z: Array, n_images: Array) -> Array:
    """Chances of a mistake in z, adjusted over the channels of the layer; shape (C,).

    By Student's t with an image fewer than were seen; NaN where z is not finite or fewer than two were.
    """
    return adjusted(two_sided(np.where(np.isfinite(z), z, np.nan), n_images - 1))
