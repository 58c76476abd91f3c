"""Gradients at their limits: energies below 1, channels that saw nothing, and passes that were not finite."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import oracles

from bnprobe.measures import gradient as measure
from bnprobe.measures import gradient_signal as signal
from bnprobe.recording import LayerRecord, NonfiniteGradient
from bnprobe.stats import Moments
from measures.sites import gradient, site, some_rows

ROWS = some_rows()


def record(dy: np.ndarray, **changes: Any) -> LayerRecord:
    return site(ROWS, gamma=1.0, beta=0.0, gradient=gradient(dy, **changes))


def test_small_gradients_are_gradients() -> None:
    """Fails if a length or an energy must be more than 1 to be divided by: of 10 values of a channel, ±0.1 and ±0.05."""
    dy = 0.1 * np.tile([1.0, -1.0], (2, 3, 5))[:, :, :5]
    dx = Moments(**oracles.channel_moments(dy / 2))
    one = record(dy, dx=dx, energy=np.array([0.1, 0.05, 0.0]), n_passes=1, n_passes_dx=4)
    # Σ dx² of a channel is 10 · 0.0025
    found = measure.channel_columns(one)["energy_removed"]
    np.testing.assert_allclose(found, [0.75, 0.5, np.nan], rtol=1e-9)
    layer = measure.layer_columns(one)
    assert layer["energy_removed_layer"] == pytest.approx(1 - 0.075 / 0.15)
    assert layer["grad_out"] == pytest.approx(math.sqrt(0.3))
    assert layer["grad_in"] == pytest.approx(math.sqrt(0.075 / 4))
    assert layer["grad_ratio"] == pytest.approx(1 / 4)
    assert measure.imbalance(pd.DataFrame({"grad_out": [0.1, 0.001]})) == pytest.approx(1)


def test_channels_that_saw_no_gradient_do_not_lack_one() -> None:
    """Fails if a channel whose gradient was never finite counts with those that it reached, or with the others."""
    dy = np.ones((2, 3, 5))
    dy[:, 0], dy[:, 1] = 0.0, np.nan
    assert measure.layer_columns(record(dy))["no_gradient"] == 1 / 2
    assert math.isnan(measure.layer_columns(record(np.full((2, 3, 5), np.nan)))["no_gradient"])


def bad(n_arriving: int, n_arising: int, n_scaled: int) -> NonfiniteGradient:
    values = (np.array([float(i), 0.0, 9.0]) for i in range(1, 6))
    return NonfiniteGradient(*values, n_arriving, n_arising, n_scaled)


LENGTHS = ("grad_out", "grad_in", "grad_ratio", "energy_removed_layer")


@pytest.mark.parametrize(
    ("arriving", "arising", "scaled", "known"),
    [(0, 0, 0, True), (1, 1, 2, True), (2, 1, 2, False), (0, 1, 0, False)],
)
def test_lengths_are_not_told_of_passes_that_were_not_finite(
    arriving: int, arising: int, scaled: int, known: bool
) -> None:
    """Fails if passes that a scaler skips spoil the others, or what is left of a broken pass looks sound."""
    one = record(ROWS, nonfinite=bad(arriving, arising, scaled))
    found = measure.layer_columns(one)
    assert [math.isnan(found[name]) for name in LENGTHS] == [not known] * 4
    counts = [found[f"n_backward{end}"] for end in ("", "_nonfinite", "_arising", "_scaled")]
    assert counts == [3 + scaled, arriving + arising, arising, scaled]
    assert not math.isnan(found["dy_kurtosis"])


def test_what_was_not_finite_is_counted_by_channel() -> None:
    """Fails if one gradient's count stands for another's, or there is one where all were finite."""
    names = ("dx_nonfinite", "grad_gamma_nonfinite", "grad_beta_nonfinite")
    found = measure.channel_columns(record(ROWS, nonfinite=bad(1, 0, 0)))
    assert [found[name].tolist() for name in names] == [[1, 0, 9], [4, 0, 9], [5, 0, 9]]
    found = measure.channel_columns(record(ROWS, nonfinite=None))
    assert [found[name].tolist() for name in names] == [[0, 0, 0]] * 3


def test_without_a_finite_pass_only_counts_are_told() -> None:
    """Fails if skipped passes alone have lengths."""
    found = measure.layer_columns(record(ROWS, n_passes=0, nonfinite=bad(2, 0, 2)))
    assert found["n_backward"] == 2
    assert all(math.isnan(found[name]) for name in LENGTHS)


# Signal and noise


def over_passes(values: np.ndarray) -> Moments:
    return Moments(**oracles.moments(np.asarray(values, dtype=float)))


def error(square: float, n: float, n_tests: float) -> float:
    """That of the mean of (T − 3)/(T − 1) F − 1/T, F a noncentral F with 1 and T − 1 degrees, by its textbook variance."""
    d, away = n - 1, n * square
    of_f = 2 * d**2 * ((1 + away) ** 2 + (1 + 2 * away) * (d - 2)) / ((d - 2) ** 2 * (d - 4))
    # mean² / var is F / T
    return math.sqrt(of_f / n_tests) * (n - 3) / (n - 1) / n


@pytest.mark.parametrize(("n_channels", "worth"), [(3, 1.0), (5, 1.0), (6, 1.2)])
def test_a_few_channels_are_worth_one(n_channels: int, worth: float) -> None:
    """Fails if fewer than five channels are worth less than one, or more of them no more."""
    passes = np.random.default_rng(4).normal(0.8, 1, size=(12, n_channels))
    square = (9 / 11 * passes.mean(0) ** 2 / passes.var(0, ddof=1) - 1 / 12).mean()
    found = signal.of_layer(over_passes(passes))
    assert found[0] == pytest.approx(math.sqrt(square), rel=1e-9)
    assert found[1] == pytest.approx(math.sqrt(square + 2 * error(square, 12, worth)), rel=1e-9)


def test_noise_alone_has_no_signal_but_a_bound() -> None:
    """Fails if a mean of squares below 0 is no 0: the means here are 0."""
    passes = np.tile([1.0, -1.0], 6)[:, None] * np.ones(3)
    pooled, upper = signal.of_layer(over_passes(passes))
    assert pooled == 0
    assert upper == pytest.approx(math.sqrt(2 * error(0.0, 12, 1)), rel=1e-9)


def test_the_typical_channel_gives_the_number_of_passes() -> None:
    """Fails if channels that saw few passes shorten it: the average of 9, 20 and 20 is another number."""
    passes = np.random.default_rng(5).normal(2, 1, size=(20, 3))
    passes[9:, 0] = np.nan
    n = np.array([9.0, 20.0, 20.0])
    square = float(
        ((n - 3) / (n - 1) * np.nanmean(passes, 0) ** 2 / np.nanvar(passes, 0, ddof=1) - 1 / n).mean()
    )
    found = signal.of_layer(Moments.of(passes))
    assert found[1] == pytest.approx(math.sqrt(square + 2 * error(square, 20, 1)), rel=1e-9)


def test_a_small_spread_is_a_spread() -> None:
    """Fails if a variance must be more than 1 to be known."""
    steady = np.random.default_rng(6).normal(1, 2, size=(9, 1))
    small = signal.squared(over_passes(1e-4 * steady))
    np.testing.assert_allclose(small, signal.squared(over_passes(steady)), rtol=1e-6)
