"""Moments of activations of a Gaussian: against adaptive quadrature, Monte Carlo, and the far tails."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy import stats as scipy_stats
from torch.nn import functional as F

from bnprobe.errors import NotDefined
from bnprobe.stats import gaussian

FUNCTIONS = {
    "none": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "hardtanh": lambda x: min(max(x, -1.0), 1.0),
    "hardtanh(-2, 0.5)": lambda x: min(max(x, -2.0), 0.5),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "leaky_relu(0.2)": lambda x: x if x > 0 else 0.2 * x,
    "hardsigmoid": lambda x: min(max(x / 6 + 0.5, 0.0), 1.0),
    "hardswish": lambda x: x * min(max(x + 3, 0.0), 6.0) / 6,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "elu(0.5)": lambda x: x if x > 0 else 0.5 * math.expm1(x),
    "silu": lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0,
    "gelu": lambda x: x * math.erfc(-x / math.sqrt(2)) / 2,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x)) if x < 30 else x),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700 else 0.0,
}
KINKS = (-3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0, 6.0)
PLACES = [(0.0, 1.0), (-1.7, 0.6), (2.3, 1.9), (5.5, 0.8), (-8.0, 1.0), (8.0, 1.0), (0.3, 9.0), (-0.2, 0.02)]


def quadrature(f, mean: float, sd: float, power: int) -> float:
    """E[f(X)^power], adaptively between the kinks, tails cut at 14 deviations."""
    ends = [mean - 14 * sd, mean + 14 * sd]
    cuts = sorted({*ends, mean, *(k for k in KINKS if ends[0] < k < ends[1])})
    return math.fsum(
        integrate.quad(
            lambda x: f(x) ** power * math.exp(-(((x - mean) / sd) ** 2) / 2),
            low,
            high,
            epsabs=1e-14,
            limit=400,
        )[0]
        / (sd * math.sqrt(2 * math.pi))
        for low, high in pairwise(cuts)
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_moments_are_those_of_quadrature(name):
    """Fails if a knot, a power, a sign or the second moment of any activation is wrong."""
    means, sds = np.array(PLACES).T
    first, second = gaussian.moments(name, means, sds)
    for i, (mean, sd) in enumerate(PLACES):
        assert first[i] == pytest.approx(quadrature(FUNCTIONS[name], mean, sd, 1), rel=1e-10, abs=1e-10)
        assert second[i] == pytest.approx(quadrature(FUNCTIONS[name], mean, sd, 2), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("mean", "sd"), [(40.0, 1.0), (-40.0, 1.0), (11.0, 10.0), (-30.0, 10.0), (11.0, 40.0), (-90.0, 40.0)]
)
def test_the_stated_error_holds_far_out(name, mean, sd):
    """Fails if a wide or distant Gaussian leaves the nodes of the quadrature, or cancels in the closed forms."""
    first, second = gaussian.moments(name, np.array([mean]), np.array([sd]))
    slack = (1e-10 if sd <= 10 else 1e-8) * (1 + mean**2 + sd**2)
    assert first[0] == pytest.approx(quadrature(FUNCTIONS[name], mean, sd, 1), abs=slack)
    assert second[0] == pytest.approx(quadrature(FUNCTIONS[name], mean, sd, 2), abs=slack)


def test_the_tail_of_a_relu_keeps_its_digits():
    """Fails if Phi is 1 - Phi: at 8 deviations below zero the mean is 1e-17, and 8 digits of it are right."""
    a = np.array([-8.0, -5.0])
    first, second = gaussian.moments("relu", 3 * a, np.array([3.0]))
    expected = [
        integrate.quad(lambda z, a=v: (z + a) * math.exp(-z * z / 2), -v, -v + 9, epsabs=0) for v in a
    ]
    squares = [
        integrate.quad(lambda z, a=v: (z + a) ** 2 * math.exp(-z * z / 2), -v, -v + 9, epsabs=0) for v in a
    ]
    root = math.sqrt(2 * math.pi)
    np.testing.assert_allclose(first, 3 * np.array(expected)[:, 0] / root, rtol=1e-8, atol=0)
    np.testing.assert_allclose(second, 9 * np.array(squares)[:, 0] / root, rtol=1e-8, atol=0)
    np.testing.assert_allclose(gaussian.probability_above(3 * a, np.array(3.0)), scipy_stats.norm.cdf(a))


def test_forty_deviations_out_it_is_the_line_or_nothing():
    """Fails if a tail underflows to NaN, or something of a dead channel is left."""
    mean = np.array([-40.0, 40.0])
    first, second = gaussian.moments("relu", mean, np.ones(2))
    np.testing.assert_allclose(first, [0.0, 40.0], rtol=1e-15)
    np.testing.assert_allclose(second, [0.0, 1601.0], rtol=1e-14)
    assert gaussian.probability_above(mean, np.ones(2)).tolist() == [0.0, 1.0]
    assert 0 < scipy_stats.norm.logcdf(-40.0) + 810 < 10  # too small for a double: 0 is its nearest one
    top, squares = gaussian.moments("relu6", 6 + mean[1:], np.ones(1))
    np.testing.assert_allclose([*top, *squares], [6.0, 36.0], rtol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_deviation_it_is_the_function_itself(name):
    """Fails if sd = 0, as gamma = 0 makes it, is divided by; on the knots too."""
    mean = np.array([*KINKS, -40.0, 2.7])
    first, second = gaussian.moments(name, mean, np.zeros(1))
    np.testing.assert_allclose(first, [FUNCTIONS[name](m) for m in mean], atol=1e-13)
    np.testing.assert_allclose(second, [FUNCTIONS[name](m) ** 2 for m in mean], rtol=1e-13, atol=1e-13)
    tiny, _ = gaussian.moments(name, mean, np.full(1, 1e-300))
    np.testing.assert_allclose(tiny, first, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_negative_deviation_is_its_size(name):
    """Fails if gamma < 0 reaches a formula as it is."""
    means, sds = np.array(PLACES).T
    for mine, other in zip(
        gaussian.moments(name, means, -sds), gaussian.moments(name, means, sds), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(
        gaussian.probability_above(means, -sds), gaussian.probability_above(means, sds)
    )


@pytest.mark.parametrize("name", ["relu6", "hardswish", "silu", "gelu", "mish", "hardsigmoid", "elu"])
def test_it_is_what_torch_makes_of_random_numbers(name, rng):
    """Fails if a name stands for another function than torch's; 5 standard errors of a million draws."""
    x = rng.normal(0.4, 1.7, size=1_000_000)
    y = getattr(F, name)(torch.from_numpy(x)).numpy()
    first, second = gaussian.moments(name, np.array(0.4), np.array(1.7))
    assert abs(y.mean() - first) < 5 * y.std() / 1000
    assert abs((y**2).mean() - second) < 5 * (y**2).std() / 1000


def test_any_shape_goes_through_and_the_known_stay_apart():
    """Fails if channels are mixed, or one NaN reaches its neighbours."""
    mean, sd = np.array([[0.2, np.nan, -1.0]]), np.array([[1.0, 1.0, np.nan], [0.5, 0.0, 2.0]])
    for name in ("relu6", "silu"):
        first, second = gaussian.moments(name, mean, sd)
        assert first.shape == second.shape == (2, 3)
        assert np.isnan(first).tolist() == [[False, True, True], [False, True, False]]
        assert first[1, 2] == gaussian.moments(name, np.array(-1.0), np.array(2.0))[0]
    assert gaussian.moments("tanh", np.zeros(0), np.zeros(0))[0].shape == (0,)


def test_the_signed_control_is_the_formula_with_the_sign_left_in():
    """Fails if the control is the prediction itself, or another mistake than the one it is named for."""
    b, g = np.array([0.7, -0.4, 1.2, 0.3]), np.array([-0.5, -1.3, 0.8, -2.0])
    cdf, pdf = scipy_stats.norm.cdf, scipy_stats.norm.pdf
    np.testing.assert_allclose(gaussian.signed_mean("relu", b, g), b * cdf(b / g) + g * pdf(b / g))
    low, high = -b / g, (6 - b) / g
    clipped = 6 * (1 - cdf(high)) + b * (cdf(high) - cdf(low)) + g * (pdf(low) - pdf(high))
    np.testing.assert_allclose(gaussian.signed_mean("relu6", b, g), clipped)
    np.testing.assert_allclose(gaussian.signed_mean("none", b, g), b)
    smooth = gaussian.signed_mean("silu", b, g)
    np.testing.assert_array_equal(smooth != gaussian.moments("silu", b, g)[0], g < 0)


@pytest.mark.parametrize("name", ["softsign", "relu(1, 2)", "leaky_relu(a)", "", "lambda"])
def test_what_is_not_known_is_refused_by_name(name):
    """Fails if an activation that nobody integrated passes for the identity."""
    assert not gaussian.is_known(name)
    with pytest.raises(NotDefined, match=r"Use one of elu, gelu, .*silu"):
        gaussian.moments(name, np.zeros(1), np.ones(1))


def test_without_a_known_skewness_it_is_the_share_of_a_gaussian():
    """Fails if an unknown skewness, or the point that has none, makes everything positive."""
    mean, sd = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 0.5, 0.0])
    found = gaussian.probability_above_skewed(mean, sd, np.full(3, np.nan))
    np.testing.assert_allclose(found, [scipy_stats.norm.sf(1), 0.5, 1.0], rtol=1e-12)


def test_a_skewed_share_is_the_first_term_of_edgeworths_series():
    """Fails on a wrong sign, divisor or power of the term, or a share beyond 0 and 1: by scipy's Φ and φ."""
    mean, sd, skew = (
        np.array([0.4, -0.7, 1.5, 0.0, -0.1]),
        np.array([1.0, -0.5, 2.0, 1.0, 1.0]),
        np.array([0.6, -0.9, 0.3, 9.0, -9.0]),
    )
    z = mean / np.abs(sd)
    expected = scipy_stats.norm.cdf(z) + skew / 6 * (z * z - 1) * scipy_stats.norm.pdf(z)
    found = gaussian.probability_above_skewed(mean, sd, skew)
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), rtol=1e-12)
    assert found[3:].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(("mean", "threshold", "share"), [(2.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.0, 1.0, 0.0)])
def test_a_point_is_above_a_threshold_or_not(mean, threshold, share):
    """Fails if a point at the threshold is above it, or the threshold is not taken off."""
    assert gaussian.probability_above(np.array([mean]), np.zeros(1), threshold).tolist() == [share]
    above = gaussian.probability_above(np.array([mean]), np.array([2.0]), threshold)
    assert above[0] == pytest.approx(scipy_stats.norm.sf(threshold, mean, 2.0), rel=1e-12)


def test_what_is_not_known_of_one_channel_is_nan_there():
    """Fails if an unknown mean or deviation gives a share, in a layer of one value or of several."""
    mean, sd = np.array([np.nan, 1.0, 1.0]), np.array([1.0, np.nan, 1.0])
    found = gaussian.probability_above(mean, sd)
    assert np.isnan(found).tolist() == [True, True, False]
    assert np.isnan(gaussian.probability_above(np.full(2, np.nan), np.ones(2))).all()


@pytest.mark.parametrize(("name", "alpha"), [("elu", 1.0), ("elu(0.5)", 0.5)])
def test_the_signed_control_of_a_smooth_activation_is_by_its_outer_lines(name, alpha):
    """Fails if the line to the left or to the right of an activation is another one: ELU tends to −α and to x."""
    mean, gamma = np.array([0.3, -0.8]), np.array([-1.2, -0.4])
    first, _ = gaussian.moments(name, mean, gamma)
    np.testing.assert_allclose(gaussian.signed_mean(name, mean, gamma), (-alpha + mean) - first, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        ("silu", 0, "x"),
        ("gelu", 0, "x"),
        ("mish", 0, "x"),
        ("tanh", -1, 1),
        ("sigmoid", 0, 1),
        ("hardsigmoid", 0, 1),
    ],
)
def test_the_outer_lines_of_every_activation(name, left, right):
    """Fails if an end of an activation is another line than torch's function has far out."""
    mean, gamma = np.array([0.3, -0.8]), np.array([-1.2, -0.4])
    first, _ = gaussian.moments(name, mean, gamma)
    outer = left + (mean if right == "x" else float(right))
    np.testing.assert_allclose(gaussian.signed_mean(name, mean, gamma), outer - first, rtol=1e-12)
    far = torch.tensor([-60.0, 60.0], dtype=torch.float64)
    assert getattr(F, name)(far).tolist() == pytest.approx([left, 60.0 if right == "x" else right], abs=1e-9)


def test_the_signed_control_of_a_point_is_the_function_itself():
    """Fails if gamma of 0 counts as negative: a ReLU of 2 is 2, not 0."""
    assert gaussian.signed_mean("relu", np.array([2.0]), np.array([0.0]))[0] == 2


def test_shares_of_unequal_and_of_equal_values_in_any_shape():
    """Fails if a value has the share of another, or a NaN that of a number: against scipy's normal distribution."""
    z = np.array([[0.5, -1.0, np.nan], [0.5, 3.0, -np.inf]])
    np.testing.assert_allclose(gaussian._below(z), scipy_stats.norm.cdf(z), rtol=1e-12)
    np.testing.assert_allclose(
        gaussian._below(np.full((2, 2), 0.3)), scipy_stats.norm.cdf(np.full((2, 2), 0.3))
    )
    assert gaussian._below(np.zeros((0, 3))).shape == (0, 3)
