"""Place and width of a channel, of four kinds, and how far those of two sides lie apart.

affine   what beta and gamma set: mean beta, standard deviation gamma (0 and 1 where there is none), with its sign: a
         layer whose gamma changed its sign has other outputs
running  its running mean and variance
pre      its inputs, as measured
post     its outputs, as measured

The distance is that of two Gaussians, sqrt((m_B - m_A)^2 + (s_B - s_A)^2): the 2-Wasserstein distance (Dowson
& Landau 1982). It is given in units that belong to both sides, so that exchanging them changes signs only: of
a channel's own standard deviation where the norm divides by it (running, pre), of the whole layer's where what follows
sees it (affine, post), because there a channel that hardly varies hardly matters. eps belongs to the unit, the smaller
one of both sides, and to no distance: what is the same on both sides differs by 0, whatever their eps, and a channel
that eps rules hardly matters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnprobe.measures import dependence
from bnprobe.recording import BATCH, LayerRecord
from bnprobe.stats import Folds
from bnprobe.stats.moments import Array

ASPECTS = ("affine", "running", "pre", "post")
WITH_DATA = ("pre", "post")
AS_A_LAYER = ("affine", "post")
"""Aspects in units of the layer's typical standard deviation."""

MISMATCH = 0.05
"""Above it the output is not what the formula of the norm says, and no error of it follows from the input's."""


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of every channel, shape (C,), with their errors where samples were counted.

    `mean_error` and `log_error` are standard errors of the mean and of the log of the standard deviation, NaN where
    they are not known. `log_sd` is the log of the standard deviation without the bias that the number of samples
    gives it. `mean_degrees` and `log_degrees` are the degrees of freedom of the errors: one fewer than samples, of which
    there are no more than were given to the model, or than folds. `floor` is the variance that the norm adds before it
    divides. `folds` are those of the inputs, about their mean, which `slope` maps, sign and all.
    """

    mean: Array
    sd: Array
    log_sd: Array
    mean_error: Array
    log_error: Array
    mean_degrees: Array
    log_degrees: Array
    floor: float = 0.0
    folds: Folds | None = None
    slope: Array | float = 1.0


def spread(record: LayerRecord, aspect: str) -> Spread:
    """One aspect of one side; NaN where it has no such thing."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return {"affine": _affine, "running": _running, "pre": _pre, "post": _post}[aspect](record)


def unit(a: Spread, b: Spread, aspect: str) -> Array:
    """The common standard deviation in which a distance is given, shape (C,); NaN where it is not above zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        square = _mean_square(a, b)
        if aspect in AS_A_LAYER and np.isfinite(square).any():
            square = np.full_like(square, np.mean(square[np.isfinite(square)]))
        return np.where(square > 0, np.sqrt(square), np.nan)


def _mean_square(a: Spread, b: Spread) -> Array:
    return (a.sd**2 + b.sd**2) / 2 + min(a.floor, b.floor)


def distribution_gap(a: Spread, b: Spread) -> float:
    """Distance of the channels' means and standard deviations as sets, whichever channel has which.

    Each is sorted on both sides, which gives the 2-Wasserstein distance of the two sets, in units of the layer's
    typical standard deviation; NaN where nothing finite is left.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        square = _mean_square(a, b)
        known = np.isfinite(square) & np.isfinite(a.mean) & np.isfinite(b.mean)
        typical = float(np.mean(square[known])) if known.any() else float("nan")
        if not typical > 0:
            return float("nan")
        gaps = [
            np.sort(theirs[known]) - np.sort(mine[known])
            for mine, theirs in ((a.mean, b.mean), (np.abs(a.sd), np.abs(b.sd)))
        ]
        return float(np.sqrt(sum(np.mean(gap**2) for gap in gaps) / typical))


def _certain(mean: Array, sd: Array) -> Spread:
    unknown = np.full(mean.shape, np.nan)
    return Spread(mean, sd, np.log(sd), unknown, unknown, unknown, unknown)


def _affine(record: LayerRecord) -> Spread:
    gamma = np.ones(record.n_channels) if record.gamma is None else record.gamma
    beta = np.zeros(record.n_channels) if record.beta is None else record.beta
    return _certain(beta, gamma)


def _running(record: LayerRecord) -> Spread:
    missing = np.full(record.n_channels, np.nan)
    if record.running_mean is None or record.running_var is None:
        return _certain(missing, missing)
    return replace(_certain(record.running_mean, np.sqrt(record.running_var)), floor=record.eps)


def _pre(record: LayerRecord) -> Spread:
    return replace(
        _sampled(record, record.pre.mean_seen, np.sqrt(record.pre.var_population)), floor=record.eps
    )


def _post(record: LayerRecord) -> Spread:
    """Errors follow from the input's where the norm is one affine map, and are 0 where the batch sets the output."""
    mean, sd, n = record.post.mean_seen, np.sqrt(record.post.var_population), record.pre_images.n
    plain = record.pools == BATCH and record.output == "derived" and not record.mismatch > MISMATCH
    if plain and not record.parameters_moved:
        if record.normalized_by == "batch":
            zero = np.where(n > 1, 0.0, np.nan)
            return Spread(mean, sd, np.log(sd), zero, zero, n - 1, n - 1)
        if record.normalized_by == "running" and not record.buffers_moved and record.running_var is not None:
            slope = _affine(record).sd / np.sqrt(record.running_var + record.eps)
            return _sampled(record, mean, sd, slope)
    return _certain(mean, sd)


def _sampled(record: LayerRecord, mean: Array, sd: Array, slope: float | Array = 1.0) -> Spread:
    """Inputs that are a sample of images, after a map with this slope for every value."""
    images = record.pre_images
    n = images.n
    # a variance over N images misses that of the mean of N
    seen = record.pre.var_population + np.nan_to_num(images.var_between / n)
    of_square = images.var_of_square_about(record.pre.mean)
    for_mean, for_log = dependence.of_mean(record), dependence.of_log_variance(record)
    mean_error = np.sqrt(images.var_between / for_mean.n)
    log_error = np.sqrt(of_square / for_log.n) / (2 * seen)
    return Spread(
        mean,
        sd,
        np.log(np.abs(slope)) + np.log(seen) / 2,
        np.abs(slope) * mean_error,
        log_error,
        for_mean.degrees,
        for_log.degrees,
        folds=None if record.pre_folds is None else record.pre_folds.about(record.pre.mean),
        slope=slope,
    )
