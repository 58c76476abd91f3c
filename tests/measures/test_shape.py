"""The distribution before and after, in six numbers: where they are defined, and what a norm does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import shape
from bnprobe.measures.shape import median
from measures.sites import running_stats_of, site, some_rows

SIX = ("mean", "var", "skew", "kurtosis", "min", "max")


def test_hand_worked_numbers():
    """Fails if the variance has divisor n - 1, or kurtosis is not in excess: values 0, 0, 0, 4."""
    rows = np.array([[[0.0, 0.0]], [[0.0, 4.0]]])
    found = shape.channel_columns(site(rows))
    assert found["pre_mean"] == pytest.approx(1)
    assert found["pre_var"] == pytest.approx(3)
    assert found["pre_skew"] == pytest.approx(2 / math.sqrt(3))
    assert found["pre_kurtosis"] == pytest.approx((81 + 3) / 4 / 9 - 3)
    assert (found["pre_min"][0], found["pre_max"][0]) == (0, 4)


def test_normalizing_moves_and_scales_and_never_changes_the_shape():
    """Fails if the sign of gamma does not flip the skewness, or kurtosis changes on the way through."""
    rows = some_rows()
    record = site(rows, gamma=[2, -0.5, -3], beta=[0.1, 0.2, 0.3], eps=0.0, **running_stats_of(rows))
    found = shape.channel_columns(record)
    np.testing.assert_allclose(found["post_mean"], [0.1, 0.2, 0.3], rtol=1e-9)
    np.testing.assert_allclose(found["post_var"], [4, 0.25, 9], rtol=1e-9)
    np.testing.assert_allclose(found["post_skew"], [1, -1, -1] * found["pre_skew"], rtol=1e-9)
    np.testing.assert_allclose(found["post_kurtosis"], found["pre_kurtosis"], rtol=1e-9)
    flipped = (found["pre_min"][1] - rows[:, 1].mean()) / rows[:, 1].std() * -0.5 + 0.2
    assert found["post_max"][1] == pytest.approx(flipped)


def test_a_constant_channel_has_a_variance_and_no_shape():
    """Fails if 0 / 0 reads as a symmetric, Gaussian channel, or warns."""
    found = shape.channel_columns(site(some_rows() * 0 + 2))
    for name in ("pre_skew", "pre_kurtosis", "post_skew", "post_kurtosis"):
        assert np.isnan(found[name]).all(), name
    np.testing.assert_array_equal(found["pre_var"], 0)
    np.testing.assert_array_equal(found["pre_min"], 2)


def test_one_value_has_a_mean_and_extremes():
    """Fails if a single value has no mean, or a shape."""
    found = shape.channel_columns(site(np.full((1, 2, 1), 3.5)))
    np.testing.assert_array_equal(found["pre_mean"], 3.5)
    np.testing.assert_array_equal(found["pre_max"], 3.5)
    assert np.isnan(found["pre_skew"]).all()


def test_nothing_is_nan():
    """Fails if the extremes of nothing are infinite, or its mean 0."""
    found = shape.channel_columns(site(some_rows() * np.nan))
    assert sorted(found) == sorted(f"{side}_{name}" for side in ("pre", "post") for name in SIX)
    for name, values in found.items():
        assert values.shape == (3,), name
        assert np.isnan(values).all(), name


def test_summary_of_a_layer():
    """Fails if lopsidedness to the left and to the right cancel, or a median is of variances' own roots."""
    rows = some_rows()
    record = site(np.concatenate([rows, -rows], axis=1))
    columns, found = shape.channel_columns(record), shape.layer_columns(record)
    assert found["pre_skew_median"] == pytest.approx(np.median(np.abs(columns["pre_skew"])))
    assert found["pre_skew_median"] > 0.1
    assert found["pre_kurtosis_median"] == pytest.approx(np.median(columns["pre_kurtosis"]))
    assert found["pre_sd_median"] == pytest.approx(np.median(np.concatenate([rows, -rows], 1).std((0, 2))))
    assert found["post_sd_median"] == pytest.approx(1, abs=1e-3)


def test_channels_without_a_shape_are_left_out_of_the_summary():
    """Fails if one constant channel makes the layer's median NaN."""
    rows = some_rows()
    rows[:, 0] = 1
    found = shape.layer_columns(site(rows))
    columns = shape.channel_columns(site(rows))
    assert found["pre_skew_median"] == pytest.approx(np.abs(columns["pre_skew"][1:]).mean())


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], math.nan), ([math.nan], math.nan), ([3.0, math.nan, 1.0], 2.0), ([1.0, math.inf, 2.0], 2.0)],
)
def test_median_of_what_is_there(values, expected):
    """Fails if NaN counts as a value, or nothing warns."""
    assert median(np.array(values)) == pytest.approx(expected, nan_ok=True)
