"""How new statistics are made from a sample and mixed with the stored ones. Arrays have shape (C,), float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bnprobe.recording import INSTANCE
from bnprobe.recording.layer_record import LayerRecord
from bnprobe.stats.moments import Array


class Statistics(NamedTuple):
    """Mean and unbiased variance of a norm's input, as `running_mean` and `running_var` hold them; shape (C,)."""

    mean: Array
    var: Array


def pooled(records: list[LayerRecord]) -> Statistics:
    """Exact statistics of everything that one norm was given, at all of its calls.

    The variance is that of all values together, so it contains the variance *of* the batch means, weighted by their
    sizes, and has the divisor n - 1, as `running_var` does. For an instance norm with stored statistics it is the mean
    over samples of the variance within a sample, divisor P - 1 with P positions (exact for samples of one size).
    NaN for channels without a finite value.
    """
    moments = records[0].pre
    images = records[0].pre_images
    for record in records[1:]:
        moments, images = moments.merge(record.pre), images.merge(record.pre_images)
    seen = moments.n > 0
    mean = np.where(seen, moments.mean, np.nan)
    if records[0].pools == INSTANCE:
        positions = moments.n / np.maximum(images.n, 1)
        within = np.maximum(moments.m2 - positions * images.aa, 0.0)
        return Statistics(mean, _divided(within, images.n * (positions - 1), seen))
    return Statistics(mean, _divided(moments.m2, moments.n - 1, seen))


def _divided(squares: Array, degrees: Array, seen: NDArray[np.bool_]) -> Array:
    return np.where(seen, np.where(degrees > 0, squares / np.maximum(degrees, 1e-300), 0.0), np.nan)


class Mixture(NamedTuple):
    """What of the new statistics is taken, and with which weight: alpha, or by the samples that the old ones count for."""

    what: tuple[str, ...]
    alpha: float
    prior: float | None

    def weight(self, n_samples: float) -> float:
        """alpha for statistics of so many samples."""
        return self.alpha if self.prior is None else weight_of(n_samples, self.prior)

    def of(self, old: Statistics, new: Statistics, n_samples: float) -> Statistics:
        """The mixture; channels of which nothing is new, NaN, stay as they were."""
        seen = ~np.isnan(new.mean)
        known = Statistics(*(np.where(seen, a, b) for a, b in zip(new, old, strict=True)))
        return mixed(old, known, self.weight(n_samples), self.what)


def mixed(old: Statistics, new: Statistics, alpha: float, what: tuple[str, ...]) -> Statistics:
    """alpha parts of the new statistics and 1 - alpha of the old; `what` of "mean" and "var" is renewed, the rest stays.

    With both, the variance is that of the mixture: alpha v_new + (1 - alpha) v_old + alpha (1 - alpha) (m_new - m_old)²,
    for the two populations lie m_new - m_old apart. With "var" alone nothing but the variances is mixed.
    """
    gap = new.mean - old.mean if "mean" in what else np.zeros_like(old.mean)
    var = alpha * new.var + (1 - alpha) * old.var + alpha * (1 - alpha) * gap**2
    return Statistics(
        alpha * new.mean + (1 - alpha) * old.mean if "mean" in what else old.mean,
        var if "var" in what else old.var,
    )


def weight_of(n_samples: float, prior: float) -> float:
    """alpha where the stored statistics count as `prior` samples: n / (n + N). Schneider et al. 2020, arXiv:2006.16971."""
    return n_samples / (n_samples + prior)
