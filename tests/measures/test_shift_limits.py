"""Distances, verdicts and reasons at their limits, where the parts of a formula differ from each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import output_moments, scale, shift, verdict
from bnprobe.recording import LayerRecord
from measures.sites import alone, site

PLUS_MINUS = np.tile([-1.0, 1.0], (4, 3, 5))[:, :, :10]
"""Rows of mean 0 and variance 1."""


def hair(value: float, to: float) -> float:
    return float(np.nextafter(value, to))


def test_distances_of_gaussians_by_hand() -> None:
    """Fails if a scale that is equal is no distance of 0, or either of mean and scale is left out: ratios 1/2, 1 and 2."""
    sigma, shifts = np.array([2.0, 1.0, 0.5]), np.array([0.3, -1.2, 0.0])
    found = shift.channel_columns(
        site(PLUS_MINUS, eps=0.0, running_mean=-shifts * sigma, running_var=sigma**2)
    )
    ratio = 1 / sigma
    np.testing.assert_allclose(found["shift"], shifts, atol=1e-12)
    np.testing.assert_allclose(found["scale_ratio"], ratio, rtol=1e-12)
    # W2² of two Gaussians is (difference of means)² + (difference of deviations)²
    np.testing.assert_allclose(found["w2"], np.sqrt(shifts**2 + (ratio - 1) ** 2), rtol=1e-12)
    np.testing.assert_allclose(found["kl"], (ratio**2 + shifts**2 - 1 - 2 * np.log(ratio)) / 2, atol=1e-12)


def test_a_layer_is_the_root_mean_square_of_channels_that_are_known() -> None:
    """Fails if a channel without a finite distance spoils the others, or q of 0.01 itself is significant."""
    record = site(PLUS_MINUS, eps=0.0, running_mean=0.0, running_var=[0.25, 4.0, np.nan])
    columns = {
        "shift": np.array([3.0, -4.0, np.nan]),
        "w2": np.array([np.inf, 5.0, -12.0]),
        "kl": np.array([1.0, 9.0, 2.0]),
        "shift_q": np.array([0.01, hair(0.01, 0), np.nan]),
        "scale_q": np.array([np.nan, np.nan, np.nan]),
    }
    found = shift.layer_columns(record, columns)
    assert found["shift_rms"] == pytest.approx(math.sqrt(25 / 2))
    assert found["w2_rms"] == pytest.approx(math.sqrt(169 / 2))
    assert found["kl_median"] == 2
    assert found["var_ratio_median"] == pytest.approx((4 + 0.25) / 2)
    assert found["shifted_share"] == 1 / 2
    assert math.isnan(found["scaled_share"])
    assert (found["training_batch"], found["n_running"]) == (32, pytest.approx(608))
    bare = shift.layer_columns(site(PLUS_MINUS), columns)
    assert math.isnan(bare["training_batch"])
    assert math.isnan(bare["n_running"])


@pytest.mark.parametrize(
    ("stored", "times"), [(0.5, 1.0), (1.0, 1.0), (4.0, 4.0), (np.nan, 1.0), (np.inf, 1.0), (0.0, 1.0)]
)
def test_training_data_varied_as_much_more_as_the_running_variance_says(stored: float, times: float) -> None:
    """Fails if it may be less, or what is no number is a factor."""
    record = site(PLUS_MINUS, running_mean=0.0, running_var=[stored, 1.0, 2.0])
    np.testing.assert_allclose(shift.times_in_training(record), [times, 1.0, 2.0], rtol=1e-12)
    np.testing.assert_array_equal(shift.times_in_training(site(PLUS_MINUS)), 1.0)
    constant = site(0 * PLUS_MINUS, running_mean=0.0, running_var=[stored, 0.0, 2.0])
    np.testing.assert_array_equal(shift.times_in_training(constant), 1.0)


# The verdict


def of_spread(spread: float, n: int = 26) -> LayerRecord:
    """Samples of mean 0, half of whose mean squares are 1 + spread and half 1 − spread."""
    size = np.sqrt(1 + spread * np.where(np.arange(n) % 2, 1, -1))
    rows = size[:, None, None] * np.tile([-1.0, 1.0], (1, 3, 4))
    return site(rows, running_mean=0.0, running_var=[1.0, 1.0, 1.001])


@pytest.mark.parametrize(("spread", "says"), [(0.499, "same"), (0.501, "too few samples")])
def test_a_scale_is_seen_where_a_visible_change_is_two_errors(spread: float, says: str) -> None:
    """Fails if the error is that of the variance, or of one sample more: spread / (2 √25) against half of 0.1."""
    record = of_spread(spread)
    error = scale.relative_error(record).se * math.sqrt(608 / (608 + 26))
    np.testing.assert_allclose(error, spread / 10, rtol=1e-9)
    assert verdict.layer_columns(record, alone(record))["verdict"] == says


@pytest.mark.parametrize(("factor", "near"), [(0.97, True), (1.03, False)])
def test_a_scale_that_looks_visible_in_a_third_is_not_near(factor: float, near: bool) -> None:
    """Fails if a third of the channels may look 10% off, or the size has no logarithm."""
    record = of_spread(0.1)
    running = np.array([1.0, 1.0, math.exp(2 * 0.1 * factor)])
    record = replace(record, running_var=running)
    # of so many samples of equal means the bias of batches is that of n values: (32 · 8 − 1) / (32 · 8)
    assert scale.log_ratio(record)[2] == pytest.approx(-0.1 * factor, abs=0.0025)
    assert verdict._near(record, alone(record)) is near


# Reasons why outputs are off target


@pytest.mark.parametrize(
    ("off", "left", "is_eps"),
    [
        (0.3, 0.099, True),
        (0.3, 0.101, False),
        (-0.3, -0.101, False),
        (0.3, -0.099, True),
        (0.0999, 0.01, False),
        (0.1001, 0.01, True),
    ],
)
@pytest.mark.parametrize("by", ["running", "batch"])
def test_eps_is_most_where_a_third_is_left_without_it(off: float, left: float, is_eps: bool, by: str) -> None:
    """Fails if another part is most of it, what holds is off, or the variance that does not divide is asked."""
    # without eps the log of the ratio is larger by half of ln((v + eps) / v)
    ratio = np.exp(np.full(3, off))
    eps = math.expm1(2 * abs(left - off)) if left > off else None
    if eps is None:
        # eps only ever enlarges: the same with both signs turned
        off, left, ratio = -off, -left, 1 / ratio
        eps = math.expm1(2 * (left - off))
    stored = {"running_mean": 0.0, "running_var": 1.0}
    made = site(PLUS_MINUS if by == "batch" else 3 * PLUS_MINUS, eps=eps, **stored)
    if by == "batch":
        made = replace(made, n_calls_running=0, n_calls_training=1, running_var=np.full(3, 9.0))
    assert made.normalized_by == by
    np.testing.assert_allclose(np.log(output_moments._without_eps(made, ratio)), left, rtol=1e-9)
    assert output_moments._eps_is_most(made, ratio) is is_eps


def test_a_tenth_off_still_holds() -> None:
    """Fails if the limit itself is off: the logs of these two ratios have the median 0.1, which no float's log is."""
    ratio = np.array([math.exp(0.1), hair(math.exp(-0.1), 1)])
    assert np.median(np.abs(np.log(ratio))) == 0.1
    assert output_moments._on_target(np.zeros(2), ratio)


def test_what_is_not_stored_was_not_left_as_it_began() -> None:
    """Fails if a norm without running statistics is said to have statistics that no batch updated."""
    stored = site(PLUS_MINUS, running_mean=0.0, running_var=1.0)
    assert verdict.never_updated(stored)
    for name in ("running_mean", "running_var"):
        assert not verdict.never_updated(replace(stored, **{name: None}))
