"""The same within a size: shown and not only not refuted, and the samples that it takes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import equivalence, scale, shift
from bnprobe.stats.significance import upper_quantile
from measures import drawn
from measures.sites import recording, running_stats_of, site, some_rows


def test_printed_quantiles_of_students_t():
    """Fails if it is two-sided: tables say 6.314, 2.132 and 1.660 for 1, 4 and 99 degrees."""
    found = upper_quantile(np.array([1.0, 4.0, 99.0, 0.0, -1.0, 4.0]))
    np.testing.assert_allclose(found, [6.314, 2.132, 1.660, np.nan, np.nan, 2.132], atol=5e-4)
    assert np.isnan(upper_quantile(np.zeros(3))).all()


def test_the_bound_and_what_two_thirds_have():
    """Fails if the size is signed, or the layer has the mean, the median, or the worst of its channels."""
    rows = some_rows(9, 6)
    record = site(rows, running_mean=rows.mean((0, 2)) + np.arange(6), running_var=rows.var((0, 2)) * 4)
    of_shift = shift.channel_columns(record)
    bound = equivalence.channel_columns(record)["shift_bound"]
    t = 1.8595  # 8 degrees, by a table
    np.testing.assert_allclose(bound, abs(of_shift["shift"]) + t * of_shift["shift_se"], rtol=1e-4)
    found = equivalence.layer_columns(record, {**of_shift, "shift_bound": bound})["same_within"]
    low, high = sorted(bound)[3:5]  # 2/3 of the way from the first to the sixth
    assert found == pytest.approx(low + (high - low) / 3)


def test_samples_needed_by_hand():
    """Fails if the noise of the running mean is forgotten, is that of the data seen, or its absence is not a number.

    Means of samples vary by V = 1 at a variance of 4 in training and 2 now: V/σ² = 0.25. 19 batches of 32 are worth 608
    samples: 0.25 · 2/608 = 0.000822. (0.1/2.9264)² = 0.0011677. So 0.25/(0.0011677 − 0.0008224) = 724.
    """
    place = np.array([-1.0, 1.0] * 20) * math.sqrt(39 / 40)
    rows = place[:, None, None] + np.array([-1.0, 1.0]) * math.sqrt(2 - 39 / 40)
    record = site(rows, running_mean=0.0, running_var=4.0, eps=0.0)
    np.testing.assert_allclose(rows.var(), 2)
    assert equivalence.samples_needed(record) == pytest.approx(724, abs=2)
    (small,) = recording(record).with_training_batch(8).layers
    assert np.isposinf(equivalence.samples_needed(small)).all()
    assert equivalence.layer_columns(small, {"shift_bound": np.zeros(1)})["samples_needed"] == math.inf
    (large,) = recording(record).with_training_batch(10**9).layers
    assert equivalence.samples_needed(large) == pytest.approx(0.25 / 0.0011677, rel=0.01)


def test_the_number_has_the_power_that_it_promises():
    """Fails if so many samples show a match in more or less than 80% of recordings: 400 channels of 30 recordings."""
    rng = np.random.default_rng(8)
    shown = []
    for _ in range(30):
        learned = drawn.statistics(rng, n_channels=40, common=0.0)
        pilot = drawn.record_of(drawn.images(rng, 400, 40, common=0.0), **learned)
        n = int(np.median(equivalence.samples_needed(pilot)))
        record = drawn.record_of(drawn.images(rng, n, 40, common=0.0), **learned)
        shown.append(np.mean(equivalence.channel_columns(record)["shift_bound"] < equivalence.NEAR))
    assert 0.7 < np.mean(shown) < 0.9


@pytest.mark.parametrize("rows", [some_rows(1), some_rows() * np.nan])
def test_nothing_is_known_without_an_error(rows):
    """Fails if one sample, or none, shows a match."""
    record = site(rows, running_mean=0.0, running_var=1.0)
    columns = {**shift.channel_columns(record), **equivalence.channel_columns(record)}
    assert np.isnan(columns["shift_bound"]).all()
    assert all(math.isnan(value) for value in equivalence.layer_columns(record, columns).values())


def test_norms_without_running_statistics():
    """Fails if a layer norm is the same as nothing."""
    record = site(some_rows(), kind="layer_norm")
    assert np.isnan(equivalence.channel_columns(record)["shift_bound"]).all()
    assert np.isnan(equivalence.samples_needed(record)).all()
    known = site(some_rows(), **running_stats_of(some_rows()))
    assert np.isfinite(equivalence.channel_columns(known)["shift_bound"]).all()


def test_the_samples_that_are_needed_by_hand():
    """Fails if eps is taken off, the noise of the running mean is left out, or counts twice: n by its formula, in numpy."""
    rows = np.random.default_rng(2).normal(size=(30, 3, 4)) * [[1.0], [2.0], [0.5]]
    var, eps = rows.var((0, 2)), 0.3
    record = site(rows, running_mean=rows.mean((0, 2)), running_var=var, eps=eps)
    spread = rows.mean(2).var(0, ddof=1) / (var + eps)
    for near in (0.1, 0.3):
        n_running = (2 - 0.1) / 0.1 * 32
        left = (near / (1.645 + 1.282)) ** 2 - spread / n_running
        expected = np.where(left > 0, np.ceil(spread / left), np.inf)
        np.testing.assert_array_equal(equivalence.samples_needed(record, near), expected)


@pytest.mark.parametrize("missing", ["running_mean", "running_var"])
def test_without_one_of_the_running_statistics_nothing_is_near(missing: str):
    """Fails if half of a pair is enough to be near to, or to be away from."""
    rows = np.random.default_rng(2).normal(size=(30, 3, 4))
    record = replace(site(rows, running_mean=0.0, running_var=1.0), **{missing: None})
    assert np.isnan(equivalence.samples_needed(record)).all()
    assert np.isnan(equivalence.channel_columns(record)["shift_bound"]).all()
    assert np.isnan(list(shift.channel_columns(record).values())).all()
    assert np.isnan(shift.variance_ratio(record)).all()
    assert np.isnan(scale.channel_columns(record)["scale_p"]).all()
