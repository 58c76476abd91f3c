"""Outlier dimensions: which channels, how many, and of which norms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import outliers
from measures.sites import site


def rows(scales: list[float], mean: float = 0.0) -> np.ndarray:
    """Channels of these root mean squares, if mean is 0: each holds only ±scale."""
    signs = np.array([[[1.0, -1.0]], [[-1.0, 1.0]]])
    return signs * np.array(scales)[:, None] + mean


def test_hand_worked_numbers():
    """Fails if the size is a variance, the typical channel a mean, or 6 itself counts."""
    record = site(rows([1, 2, 2, 12, 12.1, 40]), kind="layer_norm")
    # the median of the sizes is (2 + 12) / 2 = 7
    np.testing.assert_allclose(
        outliers.channel_columns(record)["rms_ratio"], np.array([1, 2, 2, 12, 12.1, 40]) / 7
    )
    found = outliers.layer_columns(site(rows([1, 2, 2, 2, 12, 12.1, 40]), kind="rms_norm"))
    assert found == {"outliers": 2.0, "outlier_channels": "6, 5", "rms_ratio_max": 20.0}


def test_a_mean_counts_as_size():
    """Fails if only the standard deviation counts: massive activations are mostly constant."""
    x = rows([1, 1, 1, 1, 1])
    x[:, 3] -= 50
    found = outliers.layer_columns(site(x, kind="layer_norm"))
    assert found["outlier_channels"] == "3"
    assert found["rms_ratio_max"] == pytest.approx(math.sqrt(2501))


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "group_norm", "instance_norm"])
def test_every_norm_that_does_not_pool_over_the_batch(kind):
    """Fails if one kind is left out."""
    assert outliers.layer_columns(site(rows([1, 1, 9]), kind=kind))["outliers"] == 1


def test_batch_norm_divides_every_channel_by_its_own():
    """Fails if channels of a batch norm, which may have any scale, are called outliers."""
    found = outliers.layer_columns(site(rows([1, 1, 9])))
    assert math.isnan(found["outliers"])
    assert found["outlier_channels"] == ""
    assert np.isnan(outliers.channel_columns(site(rows([1, 1, 9])))["rms_ratio"]).all()


def test_many_are_counted_and_the_largest_named():
    """Fails if the list is cut before it is sorted, or the count is of those listed."""
    scales = [1.0] * 31 + [10.0 + i for i in range(15)]
    found = outliers.layer_columns(site(rows(scales), kind="layer_norm"))
    assert found["outliers"] == 15
    assert found["outlier_channels"] == "45, 44, 43, 42, 41, 40, 39, 38, 37, 36"


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_nothing_is_no_outlier(value):
    """Fails if a layer of zeros, or of nothing, divides by zero."""
    found = outliers.layer_columns(site(rows([1, 1, 9]) * value, kind="layer_norm"))
    assert math.isnan(found["rms_ratio_max"])
