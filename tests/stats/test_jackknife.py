"""The jackknife against its definition, by leaving out each group of the images themselves; and the pooling of variances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from support import oracles

from bnprobe.stats import Folds
from bnprobe.stats.jackknife import jackknife
from bnprobe.stats.moderation import LIKE, moderated

ORIGIN = np.array([0.5, 5.0, -2.0])
SIZES = (3, 1, 5, 2, 7)


def grouped(rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    """One batch for each fold, of images of 3 channels and 4 positions."""
    return [rng.gamma(0.7, size=(n, 3, 4)) + rng.normal(size=(n, 3, 1)) for n in sizes]


def by_definition(groups: list[np.ndarray], statistic: Callable[[np.ndarray], float]) -> float:
    """Busing, Meijer & van der Leeden 1999, equations as they stand: pseudo-values, their mean, the variance."""
    n, whole = sum(map(len, groups)), statistic(np.concatenate(groups))
    rest = [statistic(np.concatenate(groups[:j] + groups[j + 1 :])) for j in range(len(groups))]
    g = len(groups)
    estimate = g * whole - sum((1 - len(one) / n) * x for one, x in zip(groups, rest, strict=True))
    total = 0.0
    for one, x in zip(groups, rest, strict=True):
        h = n / len(one)
        total += (h * whole - (h - 1) * x - estimate) ** 2 / (h - 1)
    return math.sqrt(total / g)


def of_images(image_means: np.ndarray) -> float:
    return float(image_means.mean())


@pytest.mark.parametrize("sizes", [SIZES, (4, 4, 4)])
def test_the_error_of_a_mean_and_of_a_variance(rng, sizes):
    """Fails if groups of unequal size are weighed alike, or a sum of squares is about the wrong point."""
    x = grouped(rng, sizes)
    folds = Folds(**oracles.folds(x, ORIGIN))
    mean = jackknife(*folds.leave_out(lambda a, b: a))
    log_var = jackknife(*folds.leave_out(lambda a, b: np.log(b - a * a)))
    for c in range(3):
        images = [rows[:, c] for rows in x]
        expected = by_definition(images, lambda rows: float(rows.mean()))
        assert mean.se[c] == pytest.approx(expected, rel=1e-9)
        expected = by_definition(images, lambda rows: math.log(float(rows.var())))
        assert log_var.se[c] == pytest.approx(expected, rel=1e-8)
    assert mean.degrees.tolist() == [len(sizes) - 1] * 3
    if sizes == (4, 4, 4):  # the formula of equal groups
        means = np.array([rows.mean((0, 2)) for rows in x])
        np.testing.assert_allclose(mean.se, means.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_a_number_of_all_channels_has_one_error(rng):
    """Fails if a statistic over channels is weighed by the counts of one of them: R² of the means against 1, 2, 3."""
    x = grouped(rng)

    def r2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1 - ((a + ORIGIN - [1, 2, 3]) ** 2).sum(axis=-1) / 2

    found = jackknife(*Folds(**oracles.folds(x, ORIGIN)).leave_out(r2))
    expected = by_definition(x, lambda rows: float(r2(rows.mean((0, 2)) - ORIGIN, np.zeros(3))))
    assert float(found.se) == pytest.approx(expected, rel=1e-9)
    assert float(found.degrees) == len(x) - 1


def test_an_empty_fold_is_none(rng):
    """Fails if a channel without a value in a fold has an error of all folds, or one with a single fold has any."""
    x = grouped(rng)
    x[1][:, 0] = np.nan
    for i in (0, 1, 3, 4):
        x[i][:, 2] = np.nan
    found = jackknife(*Folds(**oracles.folds(x, ORIGIN)).leave_out(lambda a, b: a))
    images = [rows[:, 0] for i, rows in enumerate(x) if i != 1]
    assert found.se[0] == pytest.approx(by_definition(images, lambda rows: float(rows.mean())), rel=1e-9)
    assert found.degrees[:2].tolist() == [3, 4]
    assert np.isnan([found.se[2], found.degrees[2]]).all()


def test_the_square_of_the_error_is_unbiased_whatever_the_sizes():
    """Fails if the divisor is that of equal groups: of 20,000 draws of groups of 1, 1, 2 and 12 values of variance 1."""
    rng, sizes = np.random.default_rng(5), np.array([1, 1, 2, 12])
    x = rng.normal(size=(len(sizes), 20_000)) / np.sqrt(sizes)[:, None]
    n = np.broadcast_to(sizes[:, None], x.shape).astype(float)
    whole = (n * x).sum(0) / n.sum(0)
    without = ((n * x).sum(0) - n * x) / (n.sum(0) - n)
    square = jackknife(whole, without, n).se ** 2
    assert square.mean() == pytest.approx(1 / sizes.sum(), rel=0.04)


def test_variances_that_are_alike_are_pooled_and_others_stay():
    """Fails if channels of one variance keep their chance differences, or those of very unlike ones are made alike."""
    rng = np.random.default_rng(3)
    degrees = np.full(400, 19.0)
    alike = rng.chisquare(19, size=400) / 19
    found, worth = moderated(alike, degrees)
    assert found.std() < 0.25 * alike.std()
    assert found.mean() == pytest.approx(1, abs=0.05)
    assert (worth > 19 * 0.9 * LIKE).all()
    unlike = alike * np.exp(2 * rng.normal(size=400))
    found, worth = moderated(unlike, degrees)
    large = unlike > 0.1  # the smallest are drawn up, from far below all others
    np.testing.assert_allclose(found[large], unlike[large], rtol=0.5)
    assert (worth < 19 * 1.2).all()


def test_the_width_of_true_variances_is_found():
    """Fails on a wrong inverse of the trigamma, or a wrong place: draws from the prior that the method assumes."""
    rng = np.random.default_rng(4)
    true = 3.0 * 8 / rng.chisquare(8, size=40_000)
    seen = true * rng.chisquare(19, size=true.size) / 19
    found, worth = moderated(seen, np.full(true.size, 19.0))
    assert worth[0] - 19 == pytest.approx(8, rel=0.05)
    np.testing.assert_allclose(found, (8 * 3.0 + 19 * seen) / 27, rtol=0.03)


def test_what_is_no_variance_stays_as_it_is():
    """Fails if zero, NaN or too few channels take part."""
    seen = np.array([0.0, np.nan, 1.0, 2.0, 0.5, np.inf])
    found, worth = moderated(seen, np.full(6, 19.0))
    np.testing.assert_array_equal(found[[0, 1, 5]], seen[[0, 1, 5]])
    assert worth[[0, 1, 5]].tolist() == [19, 19, 19]
    assert (found[[2, 3, 4]] != seen[[2, 3, 4]]).any()
    few = np.array([1.0, 3.0])
    np.testing.assert_array_equal(moderated(few, np.full(2, 19.0))[0], few)


def test_values_without_a_square_give_no_error():
    """Fails if values beyond 1e154 raise or warn: their squares have no float64, and so has no error of theirs."""
    without, n = np.array([[1e200], [-1e200], [3e200]]), np.ones((3, 1))
    assert jackknife(np.array([1e200]), without, n).se[0] == np.inf


def test_two_groups_have_one_degree_of_freedom():
    """Fails if two groups are too few, or one is enough: of groups of 1 and 3 values 5 and 1 the error is by definition."""
    n = np.array([[1.0], [3.0]])
    whole, without = np.array([2.0]), np.array([[1.0], [5.0]])
    found = jackknife(whole, without, n)
    assert found.degrees.tolist() == [1.0]
    groups = [np.array([5.0]), np.full(3, 1.0)]
    assert found.se[0] == pytest.approx(by_definition(groups, lambda x: float(x.mean())), rel=1e-12)
    single = jackknife(whole, np.array([[np.nan]]), np.array([[4.0]]))
    assert np.isnan([single.se[0], single.degrees[0]]).all()
    none = jackknife(np.array([np.nan]), np.array([[np.nan]]), np.zeros((1, 1)))
    assert np.isnan([none.se[0], none.degrees[0]]).all()


def test_what_is_said_of_an_empty_group_does_not_matter():
    """Fails if the value without a group that has no members takes part: of groups of 1 and 3, and one of none."""
    whole, n = np.array([2.0]), np.array([[1.0], [0.0], [3.0]])
    found = jackknife(whole, np.array([[1.0], [99.0], [5.0]]), n)
    np.testing.assert_allclose(found.se, jackknife(whole, np.array([[1.0], [5.0]]), n[[0, 2]]).se, rtol=1e-12)
    assert found.degrees.tolist() == [1]
