"""Samples that are not independent: errors by folds of whole batches, as large as they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support import oracles
from support.oracles import assert_same_folds

from bnprobe.comparison import differences, pairs
from bnprobe.measures import dependence, scale, shift, tables
from bnprobe.recording import CallLog, LayerRecord
from bnprobe.stats import ClassMoments, Moments
from measures import drawn
from measures.sites import recording

C, BATCH = 24, 20


def copied(rng: np.random.Generator, n: int, copies: int) -> np.ndarray:
    """n images in n / copies groups of near copies that stand side by side."""
    rows = drawn.images(rng, n // copies)
    return np.repeat(rows, copies, axis=0) + 0.05 * rng.normal(size=(n, *rows.shape[1:]))


def record_of(rows: np.ndarray, batch: int = BATCH) -> LayerRecord:
    """A norm whose running statistics are exact, and worth very many samples."""
    record = drawn.record_of(rows, np.zeros(C), np.ones(C) * (1.0025), batch)
    return replace(record, momentum=1e-6)


def chances(copies: int, n: int = 400, draws: int = 40, seed: int = 0) -> tuple[float, float]:
    """Shares of |z| > 2.8 for means and for scales, where nothing moved; .005 of a normal z, .01 of a t of 20 degrees."""
    rng = np.random.default_rng(seed)
    records = [record_of(copied(rng, n, copies)) for _ in range(draws)]
    z = [np.array([family.channel_columns(r)[name] for r in records]) for family, name in NAMES]
    return float((np.abs(z[0]) > 2.8).mean()), float((np.abs(z[1]) > 2.8).mean())


NAMES = ((shift, "shift_z"), (scale, "scale_z"))


def test_a_fast_record_has_the_folds_of_its_batches(rng):
    """Fails if the helper of these tests deals batches otherwise than the probe: the last of 3 batches is of one image."""
    rows = drawn.images(rng, 45, 2, 3)
    batches = [rows[i : i + 2] for i in range(0, 45, 2)]
    found = drawn.folds_of(rows, 2, np.array([1.0, -2.0]))
    assert_same_folds(found, oracles.folds(batches, np.array([1.0, -2.0])))


def test_copies_count_once():
    """Fails if ten copies of a photo count ten times: z of nothing spread by 3, and a third of channels passed p < .01."""
    mean, scale_ = chances(10)
    assert mean < 0.02
    assert scale_ < 0.03
    rng = np.random.default_rng(1)
    worth = [dependence.of_mean(record_of(copied(rng, 400, 10))) for _ in range(10)]
    assert np.mean([400 / w.n for w in worth]) == pytest.approx(10, rel=0.15)


def test_independent_samples_keep_their_number():
    """Fails if folds make errors larger, or degrees few, where each sample is on its own."""
    rng = np.random.default_rng(2)
    worth = [dependence.of_mean(record_of(drawn.images(rng, 400))) for _ in range(20)]
    assert np.mean([w.n for w in worth]) > 0.85 * 400
    assert max(w.n.max() for w in worth) <= 400
    assert np.mean([w.degrees for w in worth]) > 40
    mean, scale_ = chances(1)
    assert mean < 0.01
    assert scale_ < 0.02


@pytest.mark.parametrize(("batch", "by"), [(40, "folds"), (45, "samples"), (400, "samples")])
def test_few_batches_leave_errors_to_samples(batch, by):
    """Fails if folds are believed below ten, or the table says the wrong thing about it."""
    record = record_of(copied(np.random.default_rng(3), 400, 10), batch)
    assert tables(recording(record)).layers["error_from"][0] == by
    plain = dependence.of_mean(replace(record, pre_folds=None))
    assert (plain.n == 400).all()
    assert (plain.degrees == 399).all()
    found = dependence.of_mean(record)
    assert ((found.n < 80) == (by == "folds")).all()


@pytest.mark.parametrize(
    ("n", "one_class", "of", "is_sorted"),
    [
        ([200, 200], 10, 10, True),  # two classes, one after the other
        ([200, 200], 0, 10, False),
        ([100, 300], 2, 10, True),
        ([100, 300], 1, 10, False),  # one in ten is not more than a tenth
        ([200, 200], 110, 200, False),  # of pairs of two classes half are of one by chance
        ([200, 200], 180, 200, True),
        ([400], 10, 10, False),  # there is one class only
    ],
)
def test_batches_of_one_class_each_are_no_chance(n, one_class, of, is_sorted):
    """Fails if a folder in its order has the errors of ten photos, or small batches and single classes are accused."""
    rows = copied(np.random.default_rng(6), 400, 40)
    labels = np.repeat(np.arange(float(len(n))), n)
    classes = ClassMoments.of(Moments.of(rows, axis=2), labels)
    log = CallLog(0, 0, 1, None, None, None, None, None, None, None, None, of, one_class)
    record = replace(record_of(rows), classes=classes, call_log=log)
    assert record.is_sorted_by_class is is_sorted
    assert tables(recording(record)).layers["error_from"][0] == ("samples" if is_sorted else "folds")
    assert not replace(record, classes=None).is_sorted_by_class
    assert not replace(record, call_log=None).is_sorted_by_class


def test_a_channel_that_does_not_vary_has_the_errors_of_samples():
    """Fails if a constant or an empty channel spoils the pool of its layer, or raises."""
    rows = copied(np.random.default_rng(4), 400, 10)
    rows[:, 1] = 0.5
    record = record_of(rows)
    for worth in (dependence.of_mean(record), dependence.of_log_variance(record)):
        assert worth.n[1] == 400
        assert worth.degrees[1] == 399
        assert np.isfinite(worth.n).all()
        assert (np.delete(worth.n, 1) < 100).all()


def test_two_sides_of_copies_are_not_called_different():
    """Fails if a comparison counts copies: a quarter and more of the channels were called changed, in every comparison."""
    rng = np.random.default_rng(5)
    called = []
    for _ in range(12):
        a, b = (recording(record_of(copied(rng, 400, 10))) for _ in range(2))
        called.append(differences(pairs(a, b)).channels["pre_changed"].mean())
    assert np.mean(called) <= 0.01


def effect(rows: np.ndarray, batch: int = BATCH) -> tuple[float, float]:
    return dependence.batch_effect(record_of(rows, batch))


def test_ten_copies_count_as_one():
    """Fails if the mean square between batches lacks a term or a degree: copies, independent samples, and one of each."""
    rng = np.random.default_rng(7)
    assert np.mean([effect(copied(rng, 400, 10))[0] for _ in range(10)]) == pytest.approx(9.6, rel=0.1)
    assert np.mean([effect(drawn.images(rng, 390))[0] for _ in range(10)]) == pytest.approx(1, rel=0.1)
    row = tables(recording(record_of(copied(rng, 400, 10)))).layers.iloc[0]
    assert row["n_effective"] == pytest.approx(400 / row["batch_effect"])
    assert tables(recording(record_of(drawn.images(rng, 400)))).layers["n_effective"][0] <= 400


def test_the_batch_effect_by_definition(rng):
    """Fails on another divisor: the mean squares of Fisher 1925 for the means of images, batches of 20 and one of 5."""
    rows = copied(rng, 405, 5)
    means = rows.mean(axis=2)
    parts = [means[i : i + BATCH] for i in range(0, 405, BATCH)]
    between = sum(len(part) * (part.mean(0) - means.mean(0)) ** 2 for part in parts) / (len(parts) - 1)
    assert effect(rows)[0] == pytest.approx((between / means.var(axis=0, ddof=1)).mean(), rel=1e-9)


@pytest.mark.parametrize(("n", "batch"), [(8, 4), (40, 4), (60, 30), (200, 10), (200, 2)])
def test_chance_stays_below_the_bound(n, batch):
    """Fails if the bound is none: of 200 layers of independent samples none is told to be worth less than its number."""
    rng = np.random.default_rng(8)
    bounds = [effect(drawn.images(rng, n, common=0.9) ** 3, batch)[1] for _ in range(200)]
    assert max(bounds) < 1.2
    assert np.median(bounds) < 0.8


def test_the_batch_effect_is_not_told_of_rows_and_sorted_classes():
    """Fails if rows of one sample are taken for copies, or a folder with its labels for a few photos."""
    record = record_of(copied(np.random.default_rng(9), 400, 10))
    assert tables(recording(record)).layers["batch_effect"][0] > 5
    of_rows = tables(recording(record, n_images=40)).layers.iloc[0]
    assert np.isnan(of_rows["batch_effect"])
    assert np.isnan(of_rows["batch_effect_least"])
    assert np.isnan(dependence.batch_effect(replace(record, pre_folds=None))).all()
    assert np.isnan(effect(drawn.images(np.random.default_rng(9), 40), 40)).all()  # one batch
    assert np.isnan(effect(np.ones((40, C, 4)), 4)).all()


def test_the_batch_effect_has_no_unit(rng):
    """Fails if a mean square of small numbers is rounded up to one: the same samples in units of a thousandth."""
    rows = copied(rng, 400, 10)
    of_rows, of_thousandths = (
        dependence.batch_effect(replace(record_of(rows * k), running_mean=np.zeros(C))) for k in (1.0, 1e-3)
    )
    assert of_thousandths == pytest.approx(of_rows, rel=1e-6)


def test_the_bound_is_that_of_fishers_distribution(rng):
    """Fails on other degrees of freedom: 21 batches and 405 samples."""
    found, least = effect(copied(rng, 405, 5))
    assert found / least == pytest.approx(stats.f.ppf(0.999, 20, 404), rel=1e-9)


@pytest.mark.parametrize(("batch", "n", "by"), [(1, 10, True), (1, 9, False), (2, 20, True)])
def test_batches_of_one_sample_fill_folds(batch, n, by, rng):
    """Fails if a fold of one image is empty, or nine are ten; and degrees are no more than those of samples."""
    record = record_of(drawn.images(rng, n), batch)
    assert dependence.counts_folds(record) is by
    assert (dependence.of_mean(record).degrees <= n - 1).all()


def test_folds_that_are_empty_everywhere_do_not_count(rng):
    """Fails if a fold without any value is one of the ten."""
    record = record_of(drawn.images(rng, 200))
    folds = record.pre_folds
    one_less = (np.arange(len(folds.n)) > 0)[:, None]
    without = replace(folds, n=folds.n * one_less, a=folds.a * one_less, b=folds.b * one_less)
    assert dependence.counts_folds(record)
    assert not dependence.counts_folds(replace(record, pre_folds=without))
