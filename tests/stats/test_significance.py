"""p and q against the definition: an integral of the density, and Benjamini and Hochberg's steps one by one."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bnprobe.stats.significance import (
    adjusted,
    as_normal,
    as_student,
    fisher_quantile,
    mostly_above,
    two_sided,
    upper_quantile,
    without_skewness,
)


def integrated(z: float, degrees: float) -> float:
    """Two tails of Student's density, added up by the trapezoidal rule in the angle t = sqrt(degrees) tan(a)."""
    angle = np.linspace(math.atan(z / math.sqrt(degrees)), math.pi / 2, 200_001)
    height = np.cos(angle) ** (degrees - 1)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return 2 * scale * float(np.trapezoid(height, angle))


def test_pairs_are_tested_by_all_ways_to_give_them_signs():
    """Fails if the chance is not that of Wilcoxon: of all 2^n ways, the share with as large a sum of ranks above 0."""
    differences = np.array([0.7, 1.4, 0.12, -0.25, 2.2, -1.7, 1.71])
    order = np.argsort(np.argsort(np.abs(differences))) + 1
    ways = np.array(list(product((0, 1), repeat=len(order))))
    expected = np.mean(ways @ order >= order[differences > 0].sum())
    assert mostly_above(differences) == pytest.approx(expected)
    assert mostly_above(-differences) == pytest.approx(np.mean(ways @ order >= order[differences < 0].sum()))
    assert mostly_above(np.zeros(3)) == 1.0


def stepped(p: list[float]) -> list[float]:
    """The smallest level at which each test is still rejected: min over k >= rank of p(k) n / k."""
    ordered = sorted(p)
    n = len(p)
    return [min(1.0, *(ordered[k - 1] * n / k for k in range(ordered.index(x) + 1, n + 1))) for x in p]


@pytest.mark.parametrize("degrees", [1.0, 2.5, 9.0, 99.0])
def test_p_is_the_area_of_both_tails(degrees):
    """Fails if one tail is forgotten, or the normal distribution stands in for Student's."""
    z = np.array([0.0, 0.5, -1.0, 2.0, -4.0])
    wanted = [integrated(abs(value), degrees) for value in z]
    np.testing.assert_allclose(two_sided(z, np.full(5, degrees)), wanted, rtol=1e-8)


def test_p_where_there_is_nothing_to_test():
    """Fails if certainty, ignorance or a lack of images becomes a number of its own."""
    p = two_sided(np.array([np.inf, -np.inf, np.nan, 1.0, 1.0]), np.array([3.0, 3, 3, 0, np.nan]))
    np.testing.assert_array_equal(p, [0, 0, np.nan, np.nan, np.nan])
    assert np.isnan(adjusted(np.full(3, np.nan))).all()


def test_q_by_hand_and_by_steps():
    """Fails without an adjustment, with Bonferroni's, or if NaN is counted as a test."""
    p = [0.01, 0.04, 0.03, 0.5, 0.005]
    np.testing.assert_allclose(adjusted(np.array(p)), [0.025, 0.05, 0.05, 0.5, 0.025])
    with_gap = adjusted(np.array([*p, np.nan]))
    np.testing.assert_allclose(with_gap[:-1], stepped(p))
    assert np.isnan(with_gap[-1])
    random = np.random.default_rng(0).uniform(size=200) ** 3
    np.testing.assert_allclose(adjusted(random), stepped(random.tolist()), rtol=1e-12)
    shaped = adjusted(random.reshape(20, 10))
    np.testing.assert_array_equal(shaped.ravel(), adjusted(random))


def hall(t: float, g: float, n: int) -> float:
    """Hall's (1992) transformation of a studentized mean whose values have the skewness g."""
    return t + g * t**2 / (3 * n**0.5) + g**2 * t**3 / (27 * n) + g / (6 * n**0.5)


@pytest.mark.parametrize("c", [0.1, 0.4, 0.8])
def test_skewness_of_a_log_is_halls_of_the_mean_square(c):
    """Fails if a term or the part that the logarithm already does is wrong: up to second order both are one.

    The mean square of n = 10,000 samples lies two and three standard errors below the true one, 1.
    """
    n = 10_000
    for below in (2.0, 3.0):
        mean = 1 - below * c / n**0.5
        se_of_log = c / n**0.5 / mean  # of samples that vary by c about the true mean
        wanted = hall((mean - 1) / (c / n**0.5), 3 * c, n)
        found = without_skewness(np.array([np.log(mean) / se_of_log]), np.array([se_of_log / 2]))
        first_order = abs(wanted + below)
        assert found[0] == pytest.approx(wanted, abs=0.1 * first_order)
        assert abs(np.log(mean) / se_of_log - wanted) > 0.3 * first_order


def test_only_the_side_that_seems_small_loses_and_no_z_changes_its_sign():
    """Fails if "varies more" becomes more certain, a small z is turned round, or the sides are mixed up."""
    z = np.array([-3.0, 3.0, -0.01, 0.0, np.inf, -np.inf, np.nan])
    lost = -3 + 0.1 * 10 - 0.01 * 27 / 3
    expected = [lost, 3, 0, 0, np.inf, -np.inf, np.nan]
    np.testing.assert_allclose(without_skewness(z, np.full(7, 0.1)), expected, atol=1e-15)
    np.testing.assert_allclose(without_skewness(-z, np.full(7, -0.1)), -np.array(expected), atol=1e-15)
    np.testing.assert_array_equal(without_skewness(z, np.zeros(7)), z)


def test_a_mean_square_of_few_samples_is_not_called_small_by_mistake():
    """Fails without the correction, of 40 lognormal mean squares: 1.2% and not 0.6% are beyond the lower half percent."""
    x = np.exp(0.5 * np.random.default_rng(5).normal(size=(20_000, 40)))
    mean, se = x.mean(1), x.std(1, ddof=1) / 40**0.5
    z, a = np.log(mean / np.exp(0.125)) * mean / se, se / mean / 2
    raw, corrected = (two_sided(v, np.full(v.shape, 39.0)) < 0.01 for v in (z, without_skewness(z, a)))
    assert raw[z < 0].sum() / len(z) > 0.01
    assert corrected[z < 0].sum() / len(z) < 0.007
    np.testing.assert_array_equal(raw[z > 0], corrected[z > 0])


@pytest.mark.parametrize("degrees", [1.0, 9.0, 1e6])
def test_student_and_normal_by_equal_rarity(degrees):
    """Fails if one tail is taken for two, or the way back does not lead back: against scipy's distributions."""
    from scipy import stats

    z = np.array([0.5, -2.0, 4.0])
    found = as_normal(z, np.full(3, degrees))
    np.testing.assert_allclose(stats.norm.sf(found), stats.t.sf(np.abs(z), degrees), rtol=1e-9)
    np.testing.assert_allclose(as_student(found, np.full(3, degrees)), np.abs(z), rtol=1e-9)


def test_the_upper_quantile_of_each_channel():
    """Fails if it is not that of 95%, channels are exchanged, or one without a degree of freedom has any."""
    from scipy import stats

    degrees = np.array([9.0, 3.0, 0.0, 9.0, np.nan, 1.0])
    expected = [
        stats.t.ppf(0.95, 9),
        stats.t.ppf(0.95, 3),
        np.nan,
        stats.t.ppf(0.95, 9),
        np.nan,
        stats.t.ppf(0.95, 1),
    ]
    np.testing.assert_allclose(upper_quantile(degrees), expected, rtol=1e-12)
    assert np.isnan(upper_quantile(np.zeros(2))).all()


def test_one_channel_without_a_test_leaves_the_others_theirs():
    """Fails if one NaN is taken for all, in p and in quantiles, or the other way round."""
    z, degrees = np.array([np.nan, 2.0, -2.0, 1.0]), np.array([5.0, 5.0, 5.0, 0.0])
    np.testing.assert_allclose(two_sided(z, degrees), [np.nan, 0.10194, 0.10194, np.nan], atol=1e-5)
    np.testing.assert_allclose(upper_quantile(np.array([[np.nan], [4.0]])), [[np.nan], [2.1318]], atol=1e-4)
    assert np.isnan(upper_quantile(np.full(2, np.nan))).all()


def test_a_chance_above_one_by_rounding_is_one():
    """Fails if p of 1 and a bit more is refused: a sum of two halves may be that."""
    np.testing.assert_array_equal(adjusted(np.array([1 + 1e-12, 0.5])), [1.0, 1.0])


def test_nothing_to_correct_leaves_z_as_it_is():
    """Fails if z of 0, or a spread without an error of its own, is moved."""
    z = np.array([0.0, -2.0, 2.0])
    np.testing.assert_array_equal(without_skewness(z, np.array([0.3, 0.0, 0.0])), z)


def test_quantiles_and_tails_are_those_of_scipy():
    """Fails if another tail is taken, degrees of freedom change places, or what no test can show is not infinite."""
    z, degrees = np.array([0.1, 1.0, -2.5, 6.0, 30.0]), np.array([1.0, 4, 9, 31, 1000])
    tail = scipy_stats.t.sf(np.abs(z), degrees)
    np.testing.assert_allclose(two_sided(z, degrees), 2 * tail, rtol=1e-15)
    np.testing.assert_allclose(as_normal(z, degrees), scipy_stats.norm.isf(tail), rtol=1e-15)
    student = scipy_stats.t.isf(scipy_stats.norm.sf(np.abs(z)), degrees)
    np.testing.assert_allclose(as_student(np.abs(z), degrees), student, rtol=1e-15)
    np.testing.assert_array_equal(as_student(np.array([50.0]), np.array([3.0])), [np.inf])
    np.testing.assert_allclose(upper_quantile(degrees), scipy_stats.t.ppf(0.95, degrees), rtol=1e-15)
    for level in (0.025, 0.975, 0.999):
        assert fisher_quantile(level, 9, 40) == pytest.approx(scipy_stats.f.ppf(level, 9, 40), rel=1e-15)
