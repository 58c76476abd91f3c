"""The fit of implied means at its limits: few channels, small spreads, and nothing left to explain."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import implied
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Implied, Neighbours
from measures.sites import site, some_rows


def r2(truth: list[float], predicted: list[float]) -> float:
    mean = math.fsum(truth) / len(truth)
    left = math.fsum((t - p) ** 2 for t, p in zip(truth, predicted, strict=True))
    return 1 - left / math.fsum((t - mean) ** 2 for t in truth)


TRUTH, GUESS, CONSTANT = [0.3, 0.1, 0.2, 0.5], [0.28, 0.13, 0.2, 0.41], [0.2, 0.2, 0.2, 0.2]


def a_site(n: int) -> LayerRecord:
    """Running means TRUTH in running σ, of which GUESS is implied; the variance implied is a tenth."""
    vectors = (np.array(GUESS[:n]), np.full(n, 0.1), *(np.array(CONSTANT[:n]) for _ in range(4)))
    neighbours = Neighbours("relu", implied=Implied(*vectors))
    running = {"running_mean": TRUTH[:n], "running_var": 0.75}
    return site(some_rows(n_channels=n), eps=0.25, neighbours=neighbours, **running)


@pytest.mark.parametrize("n", [3, 4])
def test_small_spreads_are_explained_as_well_as_large_ones(n: int) -> None:
    """Fails if a sum of squares must be more than 1 to be explained, or three channels have no error."""
    found = implied.layer_columns(a_site(n))
    truth, guess = TRUTH[:n], GUESS[:n]
    assert found["implied_mean_r2"] == pytest.approx(r2(truth, guess))
    left, by_constant = (
        math.fsum((t - p) ** 2 for t, p in zip(truth, tried, strict=True)) for tried in (guess, CONSTANT[:n])
    )
    assert found["implied_skill"] == pytest.approx(1 - left / by_constant)
    without = [r2(truth[:c] + truth[c + 1 :], guess[:c] + guess[c + 1 :]) for c in range(n)]
    mean = math.fsum(without) / n
    assert found["implied_r2_se"] == pytest.approx(
        math.sqrt((n - 1) / n * math.fsum((v - mean) ** 2 for v in without))
    )
    assert found["implied_mean_rmse"] == pytest.approx(math.sqrt(left / n))
    np.testing.assert_allclose(implied.channel_columns(a_site(n))["implied_var_ratio"], 7.5)


@pytest.mark.parametrize("n", [1, 2])
def test_one_channel_has_no_spread_and_two_have_no_error(n: int) -> None:
    """Fails if a mean is explained by itself, or an error is told of two channels, without one of which one is left."""
    found = implied.layer_columns(a_site(n))
    assert math.isnan(found["implied_r2_se"])
    assert math.isnan(found["implied_mean_r2"]) == (n == 1)
    assert found["implied_mean_rmse"] == pytest.approx(
        math.sqrt(sum((t - g) ** 2 for t, g in zip(TRUTH[:n], GUESS[:n], strict=True)) / n)
    )


def test_nothing_implied_is_no_fit() -> None:
    """Fails if no channel at all is explained wholly, or warns."""
    fit = implied.pooled([])
    assert (fit.n_layers, fit.n_channels) == (0, 0)
    assert all(math.isnan(v) for v in (fit.r2, fit.r2_se, fit.skill, fit.rmse, *fit.controls.values()))


def test_a_constant_that_explains_all_leaves_no_skill() -> None:
    """Fails if 0 / 0 is a share."""
    record = a_site(4)
    exact = replace(record.neighbours.implied, mean_constant=np.array(TRUTH))
    assert math.isnan(
        implied.layer_columns(replace(record, neighbours=Neighbours("relu", implied=exact)))["implied_skill"]
    )
