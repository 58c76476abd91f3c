"""Signal and noise of a gradient between passes: without the bias of few passes, and with an error that holds."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from support import oracles

from bnprobe.measures import gradient_signal as signal
from bnprobe.stats import Moments


def over_passes(values: np.ndarray) -> Moments:
    return Moments(**oracles.moments(np.asarray(values, dtype=float)))


def many(rng: np.random.Generator, snr: float, n: int, n_channels: int) -> Moments:
    return Moments.of(snr + rng.normal(size=(n, n_channels)))


def test_by_the_formula():
    """Fails if the divisor is n, the variance stands for the standard deviation, or 1/T is not taken off: one channel by
    hand, one constant, one whose mean is less than its noise."""
    steady = [1.0, 3.0, 2.0, 2.0, 1.0, 3.0, 2.0, 2.0, 2.5]
    noise = [1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 0.0]
    found = signal.squared(over_passes(np.array([steady, [-2.0] * 9, noise]).T))
    mean, sd = statistics.mean(steady), statistics.stdev(steady)
    np.testing.assert_allclose(found, [6 / 8 * mean**2 / sd**2 - 1 / 9, math.nan, -1 / 9])
    of_channels = signal.of_channels(over_passes(np.array([steady, [-2.0] * 9, noise]).T))
    np.testing.assert_allclose(of_channels, [math.sqrt(found[0]), math.nan, 0])


@pytest.mark.parametrize("snr", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [8, 20])
def test_the_square_has_no_bias(snr, n):
    """Fails if pure noise has a signal: |mean| / std over 8 passes is 0.25, whose square is far from 0."""
    squares = signal.squared(many(np.random.default_rng(n), snr, n, 60_000))
    assert squares.mean() == pytest.approx(snr**2, abs=5 * squares.std() / math.sqrt(60_000))


@pytest.mark.parametrize("snr", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n", [8, 46])
def test_the_error_is_that_of_the_square(snr, n):
    """Fails if the error of the noncentral F has a wrong factor: against the spread of 60,000 draws."""
    squares = signal.squared(many(np.random.default_rng(7 + n), snr, n, 60_000))
    assert signal._error(snr**2, n, 1) == pytest.approx(squares.std(), rel=0.06)
    assert signal._error(snr**2, n, 4) == pytest.approx(signal._error(snr**2, n, 1) / 2)


@pytest.mark.parametrize("n_channels", [16, 64])
def test_the_bound_holds_for_correlated_channels(n_channels):
    """Fails if channels count as independent: here five follow one. A bound of two errors fails in some 3% of draws."""
    rng, below = np.random.default_rng(3), []
    for _ in range(600):
        own = rng.normal(size=(40, -(-n_channels // 5)))
        passes = 0.2 + np.repeat(own, 5, axis=1)[:, :n_channels]
        below.append(signal.of_layer(Moments.of(passes))[1] < 0.2)
    assert np.mean(below) < 0.06


@pytest.mark.parametrize(("n", "known"), [(1, False), (7, False), (8, True)])
def test_few_passes_tell_nothing(n, known):
    """Fails if something is said below 8 passes, or one pass is taken for a signal without noise."""
    passes = over_passes(np.random.default_rng(n).normal(size=(n, 4)))
    assert np.isfinite(signal.squared(passes)).all() == known
    assert np.isfinite(signal.of_layer(passes)).all() == known


def test_a_layer_is_all_its_channels_together():
    """Fails if channels are cut at 0 before they are averaged, which would bring the bias back, or NaN spreads."""
    rng = np.random.default_rng(0)
    passes = np.concatenate([rng.normal(size=(30, 9)), np.full((30, 1), 7.0)], axis=1)
    squares = signal.squared(over_passes(passes))[:9]
    pooled, upper = signal.of_layer(over_passes(passes))
    expected = max(squares.mean(), 0.0)
    assert (squares < 0).any()
    assert pooled == pytest.approx(math.sqrt(expected))
    assert upper == pytest.approx(math.sqrt(expected + 2 * signal._error(expected, 30, 9 / 5)))
