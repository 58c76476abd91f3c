"""What samples are worth that are not independent: copies of one photo, frames of one film, rows of one sample.

Errors that count samples hold if these are independent. Whole batches are independent more often: copies that stand
side by side lie in one batch. So batches are dealt to folds (`stats.folds`), and by how much the folds differ
more than independent samples would, by so much fewer are the samples worth. Copies that were shuffled over all
batches look independent to any such count. Batches of one class each, as a folder in its order gives them, look
dependent, and are not where every class is there with its share: where labels show such batches, errors count samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import LayerRecord
from bnprobe.stats.jackknife import jackknife
from bnprobe.stats.moderation import moderated
from bnprobe.stats.moments import Array
from bnprobe.stats.significance import fisher_quantile

COLUMNS = (
    Column(
        "error_from",
        "What errors count: samples, or also folds of whole batches, for samples of a batch that are not independent.",
        "folds: if 10 or more of 20 hold a batch; V and S · max(1, f), f = square of an error by folds over that by "
        "samples, drawn towards that of all channels",
        "samples or folds",
        "Busing, Meijer & van der Leeden 1999; Smyth 2004",
        table="layers",
    ),
    Column(
        "batch_effect",
        "Samples that count as one, as the means of batches tell: 1 if samples are independent.",
        "variance of a sample's mean, between batches (mean square) over among all samples, mean over channels; NaN where a "
        "layer sees several rows of a sample, or labels show that batches hold one class each",
        "samples",
        "design effect: Kish 1965; mean squares: Fisher 1925",
        table="layers",
    ),
    Column(
        "batch_effect_least",
        "What batch_effect is at least, by a bound that chance passes once in 1,000 layers.",
        "batch_effect / F(0.999; batches − 1, samples − 1), as if all channels were one",
        "samples",
        table="layers",
    ),
    Column(
        "batches_recorded",
        "Batches recorded; calls that go on with a cache belong to the batch in which their sequences began.",
        unit="batches",
        table="layers",
    ),
    Column(
        "batches_different",
        "Batches that are not copies of another one; NaN where more than 20 were recorded, unless all are copies.",
        "different means and mean squares of batches, to 9 digits",
        "batches",
        table="layers",
    ),
    Column(
        "n_effective",
        "Independent samples that the samples are worth, as the means of batches tell, copies of batches counted once.",
        "n_images · (different batches / batches) / max(1, batch_effect)",
        "samples",
        table="layers",
    ),
)

ENOUGH_FOLDS = 10
"""Folds from which on they correct errors: with 8 they find a fifth fewer of the moved channels of independent samples
than errors by samples do, with 10 a tenth, with 20 a thirtieth (simulated, of 64 channels and 200 images)."""


class Worth(NamedTuple):
    """How many independent samples would give a number the error that it has, and the degrees of freedom of that
    error; shape (C,) each."""

    n: Array
    degrees: Array


def of_mean(record: LayerRecord) -> Worth:
    """What the samples are worth for the mean of the input."""
    return _worth(record, mean, record.pre_images.var_between)


def of_log_variance(record: LayerRecord) -> Worth:
    """What the samples are worth for the logarithm of the variance of the input."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        spread = record.pre_images.var_of_square_about(record.pre.mean) / record.pre.var_population**2
    return _worth(record, log_variance, spread)


def mean(a: Array, b: Array) -> Array:
    """Of `Folds.leave_out`: the mean."""
    return a


def log_variance(a: Array, b: Array) -> Array:
    """Of `Folds.leave_out`: the logarithm of the variance."""
    return np.log(b - a * a)


def _worth(record: LayerRecord, statistic: Callable[[Array, Array], Array], variance: Array) -> Worth:
    """`variance` is that of one sample's contribution to the statistic.

    The factor by which the error's square exceeds that of independent samples is drawn towards that of all channels of the
    layer, which are cut into samples alike; and it is 1 at least, for folds that are too much alike prove nothing.
    """
    n, folds = record.pre_images.n * share_different(record), record.pre_folds
    if folds is None or not counts_folds(record):
        return Worth(n, n - 1)
    error = jackknife(*folds.about(record.pre.mean).leave_out(statistic))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        factor, degrees = moderated(error.se**2 / (variance / n), error.degrees)
    # of a channel that does not vary the folds say nothing
    known = np.isfinite(factor)
    return Worth(
        np.where(known, n / np.fmax(factor, 1), n),
        np.where(known, np.minimum(degrees, n - 1), n - 1),
    )


def layer_columns(record: LayerRecord) -> dict[str, str | float]:
    """What errors count, and what the samples are worth by the means of batches."""
    effect, least = batch_effect(record)
    return {
        "error_from": "folds" if counts_folds(record) else "samples",
        "batch_effect": effect,
        "batch_effect_least": least,
        "batches_recorded": float("nan") if record.pre_folds is None else record.pre_folds.n_batches,
        "batches_different": different_batches(record),
        "n_effective": record.n_images * share_different(record) / max(effect, 1.0),
    }


SAME_DIGITS = 1e-9
"""Relative difference of two sums that another order of additions makes."""


def different_batches(record: LayerRecord) -> float:
    """How many of the batches are not copies of another one; NaN where folds do not tell, as they hold several each.

    What is the same for every sample, as queries that were learned, is the same in every batch, too, and no copy.
    """
    folds = record.pre_folds
    if folds is None or folds.n_batches < 2:
        return float("nan")
    varies = folds.within > SAME_DIGITS * folds.b.sum(axis=0)
    if not varies.any():
        return float("nan")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        a, b = ((sums / folds.n)[:, varies] for sums in (folds.a, folds.b))
    scale = np.sqrt(np.nanmean(np.abs(b), axis=0))
    rows = np.concatenate([folds.n[:, varies], a / scale, b / scale**2], axis=1)
    if folds.n_batches <= len(rows):
        return float(_n_different(rows))
    # folds of several batches differ in how many these are
    return 1.0 if _n_different(rows[:, int(varies.sum()) :]) == 1 else float("nan")


def _n_different(rows: Array) -> int:
    """Rows that are not another one's copy."""
    first: list[Array] = []
    for row in rows:
        if not any(
            np.allclose(row, one, rtol=SAME_DIGITS, atol=SAME_DIGITS, equal_nan=True) for one in first
        ):
            first.append(row)
    return len(first)


def share_different(record: LayerRecord) -> float:
    """The share of the batches that are no copies, where that is known; else 1."""
    different = different_batches(record)
    return 1.0 if record.pre_folds is None or np.isnan(different) else different / record.pre_folds.n_batches


LEVEL = 0.999
"""Certainty of the lower bound."""


def batch_effect(record: LayerRecord) -> tuple[float, float]:
    """How many samples count as one, and what that is at least; NaN where it is not known."""
    folds, images = record.pre_folds, record.pre_images
    unknown = float("nan"), float("nan")
    if folds is None or record.is_sorted_by_class:
        return unknown
    if not np.array_equal(folds.n.sum(axis=0), images.n):  # rows, of which `by_sample` counts fewer
        return unknown
    used = images.n > folds.n_batches
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        between = np.maximum(images.aa - folds.within, 0) / (folds.n_batches - 1)
        effect = between / images.var_between
    effect = effect[used & np.isfinite(effect)]
    if not effect.size:
        return unknown
    found = float(effect.mean())
    by_chance = fisher_quantile(LEVEL, folds.n_batches - 1, images.n.max() - 1)
    return found, found / by_chance


def counts_folds(record: LayerRecord) -> bool:
    """Whether folds take part in the errors of a layer."""
    folds = record.pre_folds
    if folds is None or record.is_sorted_by_class:
        return False
    return int((folds.n > 0).any(axis=1).sum()) >= ENOUGH_FOLDS
