"""What samples are worth, at the limits: batches of one sample, ten folds, and channels that differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bnprobe.measures import dependence
from bnprobe.recording import LayerRecord
from measures import drawn


def record_of(rows: np.ndarray, batch: int) -> LayerRecord:
    c = rows.shape[1]
    return drawn.record_of(rows, np.zeros(c), np.ones(c), batch)


def rows_of(n: int, n_channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, n_channels, 4))


def test_batches_of_one_sample_tell_nothing_of_batches() -> None:
    """Fails if between batches of one sample each, which differ as samples do, an effect of 1 is found."""
    assert np.isnan(dependence.batch_effect(record_of(rows_of(15), 1))).all()
    assert not np.isnan(dependence.batch_effect(record_of(rows_of(15), 8))).any()


def test_one_batch_tells_nothing() -> None:
    """Fails if the mean of a single batch is said to vary."""
    assert np.isnan(dependence.batch_effect(record_of(rows_of(15), 15))).all()


def test_channels_that_lack_samples_leave_the_bound_alone() -> None:
    """Fails if the channel with the fewest samples gives the degrees of the bound, or is no channel any more."""
    record = record_of(rows_of(40), 8)
    folds, images = record.pre_folds, record.pre_images
    less = np.array([0.0, 9.0, 0.0])
    fewer = replace(
        record,
        pre_folds=replace(folds, n=folds.n - less * (np.arange(5) == 1)[:, None]),
        pre_images=replace(images, n=images.n - less),
    )
    found, least = dependence.batch_effect(fewer)
    assert found / least == pytest.approx(stats.f.ppf(0.999, 4, 39), rel=1e-9)
    between = np.maximum(images.aa - folds.within, 0) / 4
    assert found == pytest.approx((between / (images.aa / (images.n - less - 1))).mean(), rel=1e-9)


def test_samples_that_are_alike_between_batches_count_once_each() -> None:
    """Fails if batches whose means are equal make samples worth more than they are: each of ±1, ±1.1, ±1.2 and so on."""
    size = np.repeat(1 + np.arange(10) / 10, 4)
    rows = (size * np.tile([1.0, -1.0], 20))[:, None, None] * np.ones((1, 3, 4))
    record = record_of(rows, 4)
    found = dependence.layer_columns(record)
    assert found["batch_effect"] == 0
    assert found["n_effective"] == 40
    worth = dependence.of_mean(record)
    np.testing.assert_array_equal(worth.n, 40)


@pytest.mark.parametrize(("n_empty", "by"), [(0, True), (1, False)])
def test_a_fold_counts_where_any_channel_has_a_value(n_empty: int, by: bool) -> None:
    """Fails if a channel without values in a fold empties it for all others, or a fold empty in all of them counts."""
    record = record_of(rows_of(40), 4)
    folds = record.pre_folds
    assert len(folds.n) == 10
    n = folds.n.copy()
    n[0, 1] = 0
    n[:n_empty] = 0
    assert dependence.counts_folds(replace(record, pre_folds=replace(folds, n=n))) is by


@pytest.mark.parametrize("of", [dependence.of_mean, dependence.of_log_variance])
def test_what_samples_are_worth_has_no_unit(of: Any) -> None:
    """Fails if the error of a logarithm is compared with that of a variance: the same samples a hundredth as large."""
    rows = np.repeat(rows_of(20), 10, axis=0) * np.linspace(0.5, 2, 200)[:, None, None]
    plain, small = (of(record_of(size * rows, 10)) for size in (1.0, 1e-2))
    assert (plain.n < 100).all()
    np.testing.assert_allclose(small.n, plain.n, rtol=1e-6)
    np.testing.assert_allclose(small.degrees, plain.degrees, rtol=1e-6)
