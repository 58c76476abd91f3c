"""Batches that are not drawn alike: of two kinds (real and generated images, source and target domain), or each of its own
(one film, one place, one client).

A norm that uses the statistics of the batch then takes the difference between the kinds out, and in eval mode one set of
running statistics, that of the mixture, serves both. It shows in the means of batches (`stats.folds`), which fall into two
groups. Weights that move while the model learns make these means drift, so that early batches differ from late ones; kinds
that take turns differ from that in their order, and batches that each have a kind of their own from the batch before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bnprobe.measures.columns import Column
from bnprobe.recording import BATCH, LayerRecord
from bnprobe.stats.folds import Folds
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import fisher_quantile

COLUMNS = (
    Column(
        "kinds_apart",
        "Distance between the means of two kinds of batches that take turns; NaN where batches are of one kind.",
        "root mean square over channels of (mean of one kind − mean of the other) / standard deviation within a kind",
        "standard deviations",
        table="layers",
    ),
    Column(
        "kinds_spread",
        "How far the means of batches lie from that of their kind.",
        "root mean square, as kinds_apart",
        "standard deviations",
        table="layers",
    ),
    Column(
        "batches_apart",
        "How far the mean of a batch lies from that of the batch before, beyond what independent samples would differ by.",
        "√(mean over channels of (mean of (m − m of the batch before)² / 2 − its expectation) / variance within a batch); 0 "
        "where chance does as much once in 1,000 layers, NaN of fewer than 8 batches or where labels show one class in each",
        "standard deviations",
        source="von Neumann 1941, Distribution of the ratio of the mean square successive difference to the variance",
        table="layers",
    ),
)

FEWEST = 8
"""Folds of batches from which two groups of them are more than chance."""

CLEAR = 8.0
"""Standard deviations within a kind that two kinds are apart at least, in the direction in which batches differ most: of 8
batches that differ in light alone, 7 in 1,000 fall into such groups by chance, of 20 fewer than 3 in 1,000."""

BEYOND_CHANCE = 4.0
"""Times the distance that batches of independent samples have by chance."""

TURNS = 1 / 3
"""Changes from one kind to the other, as a share of the folds, from which kinds take turns; a drift changes once."""


LEVEL = 0.999
"""Certainty that batches are apart at all."""


class Kinds(NamedTuple):
    """Two kinds of batches: how far apart, and how far their batches lie from their own mean."""

    apart: float
    spread: float


NONE = Kinds(float("nan"), float("nan"))


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """What the means of batches show."""
    found = kinds(record)
    return {
        "kinds_apart": found.apart,
        "kinds_spread": found.spread,
        "batches_apart": batches_apart(record),
    }


def kinds(record: LayerRecord) -> Kinds:
    """The two kinds of batches, of norms that use the statistics of the batch; NaN where there are not two."""
    drawn = _drawn(record)
    if drawn is None:
        return NONE
    means, noise, var = drawn
    one, gap = _split(means / np.sqrt(noise))
    n = one.sum(), (~one).sum()
    if min(n) < 2 or (one[1:] != one[:-1]).sum() < TURNS * len(one) or not gap >= CLEAR:
        return NONE
    of_one, of_other = means[one].mean(0), means[~one].mean(0)
    away, rest = of_one - of_other, means - np.where(one[:, None], of_one, of_other)
    by_chance = 1 / n[0] + 1 / n[1]
    if np.mean(away**2 / noise) < BEYOND_CHANCE**2 * by_chance:
        return NONE
    within = np.maximum(var - one.mean() * (1 - one.mean()) * away**2, noise)
    apart, spread = (float(np.sqrt(np.mean(v**2 / within))) for v in (away, rest))
    return Kinds(apart, spread)


def batches_apart(record: LayerRecord) -> float:
    """How far batches lie from the one before, of norms that use the statistics of the batch; NaN where it is not known.

    From batch to batch, since weights that move while the model learns make means drift.
    """
    drawn = _drawn(record)
    if drawn is None:
        return float("nan")
    means, noise, var = drawn
    assert record.pre_folds is not None
    n_batches, n_images = record.pre_folds.n_batches, float(record.pre_images.n.max())
    steps = np.square(np.diff(means, axis=0)).mean(0) / 2
    by_chance = fisher_quantile(LEVEL, len(means) - 1, n_images - n_batches)
    if not (steps / noise).mean() > by_chance:
        return 0.0
    each = n_batches / len(means)  # a fold's mean is that of so many batches
    within = np.maximum(var - each * means.var(0), noise)
    return float(np.sqrt(np.maximum(np.mean(each * (steps - noise) / within), 0.0)))


def _drawn(record: LayerRecord) -> tuple[Array, Array, Array] | None:
    """Means of the folds (K, C), their variance if samples were independent and that of the values (C,), of channels that
    vary; None where batches are few, are not used for statistics, or hold one class each as labels show."""
    folds = record.pre_folds
    if folds is None or record.pools != BATCH or record.n_calls_running or record.is_sorted_by_class:
        return None
    if len(folds.n) < FEWEST or not (folds.n > 1).all():
        return None
    means, noise = folds.a / folds.n, _noise(folds)
    used = np.isfinite(means).all(0) & (noise > 0)
    return (means[:, used], noise[used], record.pre.var_population[used]) if used.any() else None


def _noise(folds: Folds) -> Array:
    """Variance of a fold's mean where samples are independent, from those within a batch, (C,)."""
    total = folds.n.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = folds.within / (total - folds.n_batches) / (total / len(folds.n))
        return found


def _split(means: Array) -> tuple[npt.NDArray[np.bool_], float]:
    """The folds in two groups along the direction in which they differ most: True for one of them, (K,), and how far the
    groups are apart there, in standard deviations within a group."""
    centred = means - means.mean(0)
    along = np.linalg.eigh(centred @ centred.T)[1][:, -1]
    ranked = np.sort(along)
    # the boundary that leaves least within the groups
    left = [np.var(ranked[:i]) * i + np.var(ranked[i:]) * (len(ranked) - i) for i in range(1, len(ranked))]
    at = int(np.argmin(left))
    one = along > (ranked[at] + ranked[at + 1]) / 2
    within = np.sqrt(left[at] / (len(ranked) - 2))
    return one, float((along[one].mean() - along[~one].mean()) / within) if within > 0 else float("inf")
