"""The affine view: the map against the output it makes, and folded ranges against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import affine, tables
from bnprobe.recording.neighbours import Folded, Neighbours
from measures.sites import recording, running_stats_of, site, some_rows


def folded(low: list[float], high: list[float]) -> Neighbours:
    return Neighbours("relu", folded=Folded(np.arange(len(low)) + 1.0, np.array(low), np.array(high), None))


def test_slope_and_intercept_make_the_output():
    """Fails if eps, the sign of gamma or the mean is left out: the recorded output is what x slope + intercept gives."""
    rows = some_rows()
    record = site(rows, gamma=[1.5, -2, 0], beta=[0.3, 1, 2], eps=0.1, **running_stats_of(rows))
    found = affine.channel_columns(record)
    np.testing.assert_allclose(
        record.post.mean_seen, found["slope"] * record.pre.mean_seen + found["intercept"], atol=1e-12
    )
    np.testing.assert_allclose(
        record.post.var_population, found["slope"] ** 2 * record.pre.var_population, atol=1e-12
    )
    assert found["slope"][1] < 0
    assert affine.layer_columns(record)["affine_by"] == "running"


def test_without_running_statistics_the_map_is_by_what_was_seen():
    """Fails if a batch norm without running statistics has no map, or the table does not say whose it is."""
    rows = some_rows()
    record = site(rows, gamma=2, beta=1, eps=0.1)
    found = affine.channel_columns(record)
    for c in range(3):
        values = rows[:, c].ravel()
        slope = 2 / math.sqrt(values.var() + 0.1)
        assert found["slope"][c] == pytest.approx(slope)
        assert found["intercept"][c] == pytest.approx(1 - slope * values.mean())
    assert affine.layer_columns(record)["affine_by"] == "observed"


def test_a_norm_over_channels_is_no_map_per_channel():
    """Fails if a layer norm, whose slope differs from sample to sample, is shown one."""
    found = tables(recording(site(some_rows(), kind="layer_norm", gamma=1)))
    assert found.layers["affine_by"].tolist() == ["none"]
    assert found.channels[["slope", "intercept", "eps_share"]].isna().all(axis=None)
    assert found.layers["eps_dominated"].isna().all()


def test_eps_is_weighed_against_the_variance():
    """Fails if eps_share is eps / variance, or a variance of 100 eps is taken for a small one."""
    record = site(some_rows(), running_mean=0, running_var=[0.0, 0.99, 1.0], eps=0.01)
    np.testing.assert_allclose(affine.channel_columns(record)["eps_share"], [1, 0.01, 1 / 101])
    assert affine.layer_columns(record)["eps_dominated"] == pytest.approx(2 / 3)


def test_bits_are_lost_against_the_widest_channel():
    """Fails if a range is taken one-sided, in nats, or against another channel than the widest."""
    neighbours = folded([-4.0, -0.5, -0.25, 0.0], [1.0, 1.0, 0.125, 0.0])
    record = site(
        some_rows(n_channels=4), gamma=[1, 1, 1e-3, 0], running_mean=0, running_var=1, neighbours=neighbours
    )
    found = affine.channel_columns(record)
    np.testing.assert_array_equal(found["bits_lost"], [0, 2, 4, np.nan])
    np.testing.assert_array_equal(found["filter_norm"], [1, 2, 3, 4])
    np.testing.assert_array_equal(found["folded_low"], [-4, -0.5, -0.25, 0])
    layer = affine.layer_columns(record)
    assert layer["bits_lost_median"] == 2
    assert layer["folded_spread"] == 0.25
    # the channel that loses most is switched off, and the one without weights has nothing to lose
    assert layer["bits_lost_worst"] == 2


def test_without_gamma_no_channel_is_switched_off():
    """Fails if a norm without gamma has no worst channel."""
    record = site(
        some_rows(n_channels=2), running_mean=0, running_var=1, neighbours=folded([-4.0, -0.5], [0, 0])
    )
    assert affine.layer_columns(record)["bits_lost_worst"] == 3


def test_where_nothing_is_known_of_the_weights_there_is_no_number():
    """Fails if a norm whose feeder was not found has a range, or a fold without statistics is shown."""
    names = ("filter_norm", "folded_low", "folded_high", "bits_lost")
    found = tables(recording(site(some_rows(), gamma=1, running_mean=0, running_var=1)))
    assert found.channels[list(names)].isna().all(axis=None)
    assert found.layers[["folded_spread", "bits_lost_median", "bits_lost_worst"]].isna().all(axis=None)
    missing = [math.nan] * 3
    found = tables(recording(site(some_rows(), gamma=1, neighbours=folded(missing, missing))))
    assert found.channels["filter_norm"].tolist() == [1, 2, 3]
    assert found.channels[["folded_low", "bits_lost"]].isna().all(axis=None)


def test_bits_lost_by_hand():
    """Fails if the wider end of a range is not taken, a dead channel counts among the live, or a negative γ is dead."""
    low, high = np.array([-4.0, -0.5, -1.0, 0.0]), np.array([1.0, 0.25, 0.5, 0.0])
    neighbours = Neighbours("relu", "conv", folded=Folded(np.ones(4), low, high, None))
    norm = site(some_rows(5, 4), gamma=[1.0, 0.001, -1.0, 1.0], beta=0.0, neighbours=neighbours)
    np.testing.assert_allclose(affine.channel_columns(norm)["bits_lost"], [0.0, 3.0, 2.0, np.nan])
    found = affine.layer_columns(norm)
    assert (found["bits_lost_worst"], found["bits_lost_median"]) == (2.0, 2.0)
    assert found["folded_spread"] == pytest.approx(0.25)
    without = site(some_rows(5, 4), neighbours=neighbours)
    assert affine.layer_columns(without)["bits_lost_worst"] == 3.0


def test_without_gamma_and_beta_the_map_is_that_of_the_statistics():
    """Fails if a norm without a scale turns its input over, or adds something of its own."""
    rows = some_rows(7)
    found = affine.channel_columns(
        site(rows, running_mean=[1.0, -2.0, 3.0], running_var=[4.0, 0.25, 9.0], eps=0.1)
    )
    sd = np.sqrt(np.array([4.0, 0.25, 9.0]) + 0.1)
    np.testing.assert_allclose(found["slope"], 1 / sd)
    np.testing.assert_allclose(found["intercept"], -np.array([1.0, -2.0, 3.0]) / sd)
