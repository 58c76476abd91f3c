"""Small numbers beside gains and inputs: what hardly differs, what is below 1, and what is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures import equivalence, gains, headroom, outliers, shift
from bnprobe.measures.dependence import of_mean
from bnprobe.measures.tokens import channel_columns
from bnprobe.recording.neighbours import Neighbours
from bnprobe.stats.tokens import N_SCALES, TokenStats
from measures import drawn
from measures.sites import site


def of_tokens(gamma: Any, size: np.ndarray, **changes: Any) -> Any:
    """A norm over features whose tokens have so much energy in each."""
    n = len(size)
    tokens = replace(TokenStats.empty(n), z_square=size, scales=np.eye(1, N_SCALES)[0])
    rows = np.random.default_rng(0).normal(size=(3, n, 2))
    return site(rows, kind="rms_norm", gamma=gamma, tokens=tokens, **changes)


def test_gains_and_sizes_that_hardly_differ_correlate_as_others_do() -> None:
    """Fails if logs must spread by more than 1."""
    rng = np.random.default_rng(5)
    gamma, size = 1e-3 * rng.normal(size=9), 1e-3 * rng.normal(size=9)
    found = gains.layer_columns(of_tokens(np.exp(gamma), np.exp(size)))["gamma_vs_size"]
    assert found == pytest.approx(np.corrcoef(gamma, size)[0, 1], rel=1e-6)


@pytest.mark.parametrize("n", [31, 32, 33])
def test_a_block_that_is_not_full_has_shares_of_its_gains(n: int) -> None:
    """Fails if what fills a block up counts, or the 33rd gain is measured by the largest of the first 32."""
    gamma = np.full(n, 0.01)
    gamma[0] = 1.9
    # of 0.01 the power of two is 1/128, and 1.28 times that
    assert gains.saturating(gamma) == 1 / n
    gamma[-1] = 1.9 / 128
    assert gains.saturating(gamma) == (2 if n == 33 else 1) / n


def test_small_energies_have_shares() -> None:
    """Fails if energies must be more than 1 together."""
    neighbours = Neighbours("linear", reads=np.array([0.1, 0.2, 0.0]))
    found = channel_columns(of_tokens([1.0, 0.5, 3.0], np.array([0.1, 0.3, 0.2]), neighbours=neighbours))
    np.testing.assert_allclose(found["z_share"], [1 / 6, 3 / 6, 2 / 6])
    np.testing.assert_allclose(found["read_share"], [1 / 4, 3 / 4, 0])


def test_small_inputs_have_headroom() -> None:
    """Fails if the largest input must be more than 1."""
    found = headroom.layer_columns(site(0.25 * np.tile([-1.0, 1.0], (2, 3, 4))))
    assert (found["largest_input"], found["half_headroom"]) == (0.25, 4 * 65504)


def test_channels_without_values_are_no_outliers() -> None:
    """Fails if one of them comes first, or spoils the others."""
    rows = np.tile([-1.0, 1.0], (2, 6, 4)) * np.array([1.0, 9.0, 1.0, 1.0, 20.0, 1.0])[:, None]
    rows[:, 3] = np.nan
    found = outliers.layer_columns(site(rows, kind="layer_norm", own_mean=None, own_log_var=None))
    assert (found["outliers"], found["outlier_channels"], found["rms_ratio_max"]) == (2, "4, 1", 20)


def test_samples_that_are_worth_less_are_needed_in_larger_number() -> None:
    """Fails if samples to come count as independent where those seen do not: copies of twenty images, ten of each."""
    rng = np.random.default_rng(0)
    rows = np.repeat(drawn.images(rng, 20, 5), 10, axis=0)
    rows += 0.05 * rng.normal(size=rows.shape)
    record = replace(drawn.record_of(rows, np.zeros(5), np.ones(5), batch=10), momentum=1e-6)
    worth = of_mean(record).n
    assert (worth < 60).all()
    spread = rows.mean(2).var(0, ddof=1) / (1 + 1e-5)
    # the running mean of 2 million batches has hardly any noise
    noise = spread * np.maximum(1 / rows.var((0, 2)), 1) / ((2 - 1e-6) / 1e-6 * 32)
    expected = np.ceil(spread / ((0.1 / (1.645 + 1.282)) ** 2 - noise) * 200 / worth)
    np.testing.assert_allclose(equivalence.samples_needed(record), expected, atol=1)
    assert (shift.times_in_training(record) >= 1).all()
