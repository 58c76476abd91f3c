"""How often an output is positive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm as gaussian

from bnprobe.measures import activity
from measures.sites import site, some_rows


def test_share_of_outputs_above_zero():
    """Fails if zero counts as positive, the input's sign is counted, or the share is of something else.

    Values -1, 0, 0, 3 pass unchanged (mean 0, variance 1); gamma -1 turns them round.
    """
    rows = np.array([[[-1.0, 0.0], [-1.0, 0.0]], [[0.0, 3.0], [0.0, 3.0]]])
    record = site(rows, gamma=[1, -1], beta=0, running_mean=0, running_var=1, eps=0.0)
    np.testing.assert_array_equal(activity.channel_columns(record)["fires"], [0.25, 0.25])
    shifted = site(rows, gamma=[1, -1], beta=-0.5, running_mean=0, running_var=1, eps=0.0)
    np.testing.assert_array_equal(activity.channel_columns(shifted)["fires"], [0.25, 0.25])
    raised = site(rows, gamma=[1, -1], beta=0.5, running_mean=0, running_var=1, eps=0.0)
    np.testing.assert_array_equal(activity.channel_columns(raised)["fires"], [0.75, 0.75])


def test_gaussian_channels_fire_as_gamma_and_beta_predict():
    """Fails if `fires` belongs to another channel: Phi(beta / |gamma|) is known for Gaussian inputs."""
    rng = np.random.default_rng(4)
    gamma, beta = np.array([1.0, -2.0, 0.5, 0.1]), np.array([0.0, 1.0, -1.0, -1.0])
    rows = rng.normal(size=(40, 4, 250))
    record = site(rows, gamma=gamma, beta=beta, running_mean=0, running_var=1, eps=0.0, histograms=False)
    predicted = gaussian.cdf(beta / np.abs(gamma))
    np.testing.assert_allclose(activity.channel_columns(record)["fires"], predicted, atol=0.015)


def test_summary_counts_the_dead():
    """Fails if channels that fire rarely, or that were never seen, count as never positive."""
    rows = some_rows(n_channels=4)
    rows[:, 3] = np.nan
    record = site(rows, gamma=[1, 1e-9, 1, 1], beta=[-1e9, -1, 0, 0])
    fires = activity.channel_columns(record)["fires"]
    assert fires[:2].tolist() == [0, 0]
    assert 0 < fires[2] < 1
    assert math.isnan(fires[3])
    found = activity.layer_columns(record)
    assert found["never_positive"] == 2
    assert found["fires_median"] == 0


def test_nothing_seen_fires_neither_always_nor_never():
    """Fails if 0 of 0 is a share."""
    record = site(some_rows() * np.nan)
    assert np.isnan(activity.channel_columns(record)["fires"]).all()
    found = activity.layer_columns(record)
    assert math.isnan(found["fires_median"])
    assert found["never_positive"] == pytest.approx(0)
