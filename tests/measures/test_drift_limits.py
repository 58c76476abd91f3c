"""Drift, stored variances and logs of scales where some norm, sample or channel says nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import scale
from bnprobe.measures.drift import drift_tables
from bnprobe.measures.stored_variance import var_as_stored
from measures.sites import recording, site, some_rows

NOW, REFERENCE = some_rows(9), some_rows(20, seed=4) + 0.3


@pytest.mark.parametrize("of_now", [True, False])
def test_a_norm_without_samples_does_not_drift(of_now: bool) -> None:
    """Fails if one norm that was not called leaves all others without a table, or has a drift."""
    empty = site(NOW[:0], "b", running_mean=1.0, running_var=1.0)
    full = site(NOW, "b", running_mean=1.0, running_var=1.0)
    now = recording(site(NOW, "a"), empty if of_now else full)
    reference = recording(site(REFERENCE, "a"), full if of_now else empty)
    found = drift_tables(now, reference, 0.01)
    assert found.layers["layer"].tolist() == ["a", "b"]
    assert found.layers["drift_rms"].isna().tolist() == [False, True]
    assert found.layers["drift_noise"].isna().tolist() == [False, True]
    assert found.layers["n_drifted"].tolist() == [0, 0]


def test_a_channel_that_does_not_vary_leaves_the_others_their_drift() -> None:
    """Fails if an infinite drift counts: of a constant reference channel, with another value now."""
    now, reference = NOW.copy(), REFERENCE.copy()
    now[:, 1], reference[:, 1] = 2.0, 5.0
    found = drift_tables(recording(site(now)), recording(site(reference)), 0.01)
    others = [0, 2]
    drift = (now.mean((0, 2)) - reference.mean((0, 2)))[others] / reference.std((0, 2))[others]
    assert found.channels["drift"][1] == -math.inf
    assert found.layers["drift_rms"][0] == pytest.approx(math.sqrt((drift**2).mean()))
    assert not found.channels["drifted"][1]


@pytest.mark.parametrize("n", [1, 2])
def test_an_instance_norm_of_one_sample_stores_its_variance(n: int) -> None:
    """Fails if one sample differs from itself, or two do not differ."""
    rows = some_rows(n)
    record = site(rows, kind="instance_norm", running_mean=0.0, running_var=1.0)
    np.testing.assert_allclose(var_as_stored(record), rows.var(2).mean(0), rtol=1e-9)


def test_a_batch_of_one_constant_sample_has_no_variance() -> None:
    """Fails if what such a batch stores is compared with anything: two samples of mean ±1, training in batches of one."""
    constant = np.array([-1.0, 1.0])[:, None, None] * np.ones((1, 3, 5))
    stored = {"running_mean": 0.0, "running_var": 1.0, "eps": 0.0}
    assert np.isnan(scale.log_ratio(site(constant, **stored, training_batch=1))).all()
    # the population varies by 2, and a batch of two values of each sample stores 2 (1 − 1/2) 10/9
    np.testing.assert_allclose(
        scale.log_ratio(site(constant, **stored, training_batch=2)),
        np.log(2 / (1 * 0.9 / 0.5)) / 2,
        rtol=1e-9,
    )


def test_a_scale_without_a_running_variance_has_no_logarithm() -> None:
    """Fails if one that is missing is 1."""
    assert np.isnan(scale.log_ratio(site(some_rows()))).all()


@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
def test_half_of_a_pair_has_no_certainty(missing: str) -> None:
    """Fails if a running variance alone is compared with."""
    record = replace(site(some_rows(), running_mean=0.0, running_var=1.0), **{missing: None})
    for name, values in scale.channel_columns(record).items():
        assert np.isnan(values).all(), name
