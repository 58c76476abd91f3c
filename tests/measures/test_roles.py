"""Roles of channels: every rule by a channel made for it, shares against raw values, prediction against counts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm as gaussian

from bnprobe.measures import roles
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours
from measures.sites import running_stats_of, site, some_rows


def normal_rows(n_channels: int, n: int = 50, positions: int = 400) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(n, n_channels, positions))


def record(
    gamma: Any, beta: Any, follows: str | None, rows: np.ndarray | None = None, **changes: Any
) -> LayerRecord:
    """A batch norm with these vectors over standard normal rows that agree with its running statistics, and what follows."""
    gamma = np.atleast_1d(np.float64(gamma))
    rows = normal_rows(len(gamma)) if rows is None else rows
    made = site(rows, gamma=gamma, beta=beta, eps=1e-12, **running_stats_of(rows), **changes)
    return replace(made, neighbours=None if follows is None else Neighbours(follows))


def role(gamma: float, beta: float, follows: str | None, **changes: Any) -> str:
    return str(roles.channel_columns(record(gamma, beta, follows, **changes))["role"][0])


RULES = [
    # gamma, beta, what follows, role
    (1.0, 0.0, "relu", "mixed"),
    (-1.0, 0.0, "relu", "mixed"),
    (1.0, -8.0, "relu", "dead"),
    (-1.0, -8.0, "relu", "dead"),
    (1.0, -2.0, "relu", "rare"),
    (1.0, 8.0, "relu", "linear"),
    (1.0, 8.0, "relu6", "saturated"),
    (0.3, 3.0, "relu6", "linear"),
    (1.0, 5.5, "relu6", "mixed"),
    (1.0, -8.0, "relu6", "dead"),
    (1e-3, 0.5, "relu", "constant"),
    (-1e-3, 0.5, "add, relu", "constant"),
    (1e-3, -0.5, "relu", "dead"),
    (1e-3, -0.5, "conv", "constant"),
    (1.0, -2.0, "hardswish", "mixed"),
    (1.0, -12.0, "hardswish", "dead"),
    (0.3, 5.0, "hardswish", "linear"),
    (1.0, -5.0, "hardswish", "rare"),
    (1.0, 5.0, "hardsigmoid", "saturated"),
    (0.2, 0.0, "hardtanh", "linear"),
    (0.6, 0.0, "hardtanh", "mixed"),
    (0.6, 0.0, "hardtanh(-4, 4)", "linear"),
    (0.6, 0.0, "leaky_relu(0.2)", "mixed"),
    (1.0, -8.0, "silu", "mixed"),
    (1.0, -8.0, "gelu", "mixed"),
    (1.0, -8.0, "linear", "linear"),
    (1.0, -8.0, "none", "linear"),
    (1.0, -8.0, "add", "linear"),
    # the sum decides, not the norm
    (1.0, -8.0, "add, relu", "unknown"),
    (1.0, -8.0, "relu | add", "unknown"),
    (1.0, -8.0, "relu | cat, relu", "dead"),
    (1.0, -8.0, "cat, relu", "dead"),
    (1.0, -8.0, "max_pool, relu", "unknown"),
    (1.0, -8.0, "mul", "unknown"),
    (1.0, -8.0, "unknown", "unknown"),
    (1e-3, 0.0, "unknown", "constant"),
    (1.0, 0.0, None, "unknown"),
]


@pytest.mark.parametrize(("gamma", "beta", "follows", "expected"), RULES)
def test_every_rule(gamma: float, beta: float, follows: str | None, expected: str):
    """Fails if a threshold, an end, or the precedence of the rules is off."""
    assert role(gamma, beta, follows) == expected


def test_what_passed_is_not_dead():
    """A prediction does not outweigh what was seen: this channel is far from where its running statistics put it."""
    rows = normal_rows(1)
    made = site(rows, gamma=[0.02], beta=[-0.2], running_mean=[-20.0], running_var=[1.0], eps=0.0)
    made = replace(made, neighbours=Neighbours("relu"))
    columns = roles.channel_columns(made)
    assert columns["dead_predicted"][0] == 1
    assert columns["role"][0] == "linear"
    assert roles.layer_columns(made)["dead_precision"] == 0


def test_the_sign_of_gamma_kills_nothing():
    """Fails if the reach of a channel of negative gamma is taken for its opposite."""
    made = record([-1.0, 1.0, -1.0, 1.0], [-2.0, -2.0, -7.0, -7.0], "relu")
    np.testing.assert_array_equal(roles.dead_predicted(made), [0, 0, 1, 1])


def test_a_norm_that_is_not_understood_claims_nothing():
    """Where the output is not the formula's (an activation inside the module), the norm's values were never seen."""
    made = record(1.0, -8.0, "relu")
    assert roles.channel_columns(replace(made, mismatch=0.4))["role"][0] == "unknown"
    assert roles.channel_columns(replace(made, mismatch=float("nan")))["role"][0] == "dead"


def test_without_values_the_prediction_stands():
    """No image seen: dead by the vectors alone, else nothing is said."""
    empty = normal_rows(2)[:0]
    made = site(empty, gamma=[1.0, 1.0], beta=[-8.0, 0.0], running_mean=[0, 0], running_var=[1, 1])
    columns = roles.channel_columns(replace(made, neighbours=Neighbours("relu")))
    assert list(columns["role"]) == ["dead", "unknown"]
    assert np.isnan(columns["passes"]).all()
    assert np.isnan(roles.layer_columns(replace(made, neighbours=Neighbours("relu")))["fires_error"])


def test_shares_from_the_histogram():
    """Within the width of a bin of the raw counts, and exact where the extremes settle it."""
    gamma, beta = np.array([0.5, -2.0, 1.0, 1.0]), np.array([5.8, 4.0, -9.0, 30.0])
    rows = some_rows(20, 4, 300)
    made = record(gamma, beta, "relu6", rows)
    y = gamma[:, None] * (rows - rows.mean((0, 2))[:, None]) / rows.std((0, 2))[:, None] + beta[:, None]
    real = (y > 6).mean((0, 2))
    found = roles.channel_columns(made)["saturates"]
    np.testing.assert_allclose(found, real, atol=0.08)
    np.testing.assert_array_equal(found[2:], [0, 1])
    blind = record(gamma, beta, "relu6", rows, histograms=False)
    np.testing.assert_array_equal(roles.channel_columns(blind)["saturates"], [np.nan, np.nan, 0, 1])


def test_predicted_firing():
    """Phi(beta / |gamma|) against the counts of Gaussian values, gamma negative and zero included."""
    gamma, beta = np.array([1.0, -2.0, 0.5, 0.0, 0.0]), np.array([0.3, -1.0, 0.0, 0.2, 0.0])
    made = record(gamma, beta, "relu", normal_rows(5))
    found = roles.channel_columns(made)
    expected = [gaussian.cdf(0.3), gaussian.cdf(-0.5), 0.5, 1.0, 0.0]
    np.testing.assert_allclose(found["fires_predicted"], expected, rtol=1e-12)
    fires = made.n_positive / made.post.n
    assert np.abs(found["fires_predicted"] - fires).max() < 5 * 0.5 / np.sqrt(50 * 400)
    error = np.mean(np.abs(np.array(expected) - fires))
    assert roles.layer_columns(made)["fires_error"] == pytest.approx(error, rel=1e-12)


def test_firing_where_the_data_have_moved():
    """Fails if the observed mean and std do not enter: shifted data fire as their own Gaussian says."""
    rows = 0.5 * normal_rows(1) + 1.0
    made = site(rows, gamma=[-2.0], beta=[0.5], running_mean=[0.0], running_var=[1.0], eps=0.0)
    found = roles.channel_columns(replace(made, neighbours=Neighbours("relu")))
    assert found["fires_predicted"][0] == pytest.approx(gaussian.cdf(0.25))
    assert found["fires_gaussian"][0] == pytest.approx(gaussian.cdf(-1.5), abs=0.003)
    assert made.n_positive[0] / made.post.n[0] == pytest.approx(found["fires_gaussian"][0], abs=0.01)


def test_firing_of_skewed_outputs():
    """Fails if the skewness has the wrong sign or factor, or a share leaves 0 to 1: against the series and counts."""
    rng = np.random.default_rng(4)
    rows = np.stack(
        [rng.gamma(9.0, size=(60, 400)), -rng.gamma(9.0, size=(60, 400)), rng.gamma(0.05, size=(60, 400))], 1
    )
    rows = (rows - rows.mean((0, 2))[:, None]) / rows.std((0, 2))[:, None]
    beta = [0.4, 0.4, 0.0]
    made = site(rows, gamma=1.0, beta=beta, running_mean=0.0, running_var=1.0, eps=0.0)
    found, fires = roles.channel_columns(made), made.n_positive / made.post.n
    for c in (0, 1):
        z, skew = beta[c], float((rows[:, c] ** 3).mean())
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        assert found["fires_skewed"][c] == pytest.approx(
            gaussian.cdf(z) + skew / 6 * (z * z - 1) * density, rel=1e-9
        )
    off = {name: np.abs(found[name] - fires) for name in ("fires_gaussian", "fires_skewed")}
    assert (off["fires_skewed"][:2] < 0.2 * off["fires_gaussian"][:2]).all()
    # of a skewness of 9 the series gives 0.5 - 0.6
    assert found["fires_skewed"][2] == 0


def test_a_constant_output_fires_always_or_never():
    """Fails if the skewness of a point, which is not defined, makes its share undefined."""
    made = site(np.ones((4, 2, 3)), gamma=0.0, beta=[0.2, -0.2], running_mean=0.0, running_var=1.0)
    np.testing.assert_array_equal(roles.channel_columns(made)["fires_skewed"], [1, 0])


def test_precision_and_recall():
    """Counted by hand: of 3 predicted 2 are dead, of 4 dead 2 were predicted."""
    rows = normal_rows(6)
    gamma = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    beta = np.array([-7.0, -9.0, -7.0, -5.5, -5.5, 1.0])
    made = record(gamma, beta, "relu", rows)
    counts = np.array([0.0, 0.0, 5.0, 0.0, 0.0, 9.0])
    made = replace(made, n_positive=counts)
    columns = roles.layer_columns(made)
    assert (columns["dead_precision"], columns["dead_recall"]) == (2 / 3, 2 / 4)
    assert (columns["n_dead"], columns["n_rare"]) == (4, 2)
    assert np.isnan(roles.layer_columns(record(gamma, beta, "linear", rows))["dead_recall"])


def test_roles_are_counted():
    """Every channel is in one role of the list."""
    made = record([1.0, 1.0, 1e-3, 1.0, 1.0], [0.0, -8.0, 0.5, -2.0, 8.0], "relu", normal_rows(5))
    columns = roles.layer_columns(made)
    assert {r: columns[f"n_{r}"] for r in roles.ROLES if columns[f"n_{r}"]} == {
        "mixed": 1,
        "dead": 1,
        "constant": 1,
        "rare": 1,
        "linear": 1,
    }
    assert sum(columns[f"n_{r}"] for r in roles.ROLES) == 5
