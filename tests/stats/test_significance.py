"""p and q against the definition: an integral of the density, and Benjamini and Hochberg's steps one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.stats.significance import adjusted, two_sided


def integrated(z: float, degrees: float) -> float:
    """Two tails of Student's density, added up by the trapezoidal rule in the angle t = sqrt(degrees) tan(a)."""
    angle = np.linspace(math.atan(z / math.sqrt(degrees)), math.pi / 2, 200_001)
    height = np.cos(angle) ** (degrees - 1)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return 2 * scale * float(np.trapezoid(height, angle))


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
