"""What layer, instance, group and RMS norms compute themselves, sample by sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import per_sample
from measures.sites import running_stats_of, site, some_rows


def test_hand_worked_numbers():
    """Fails if the divisor is a variance, or the log's mean is not undone: standard deviations 1 and 4 have the middle 2."""
    rows = np.array([[[1.0], [3.0]], [[6.0], [14.0]]])  # per sample: mean 2, std 1; mean 10, std 4
    found = per_sample.layer_columns(site(rows, kind="layer_norm", eps=1e-12))
    assert found["own_mean"] == pytest.approx(6)
    assert found["own_mean_sd"] == pytest.approx(4)
    assert found["own_sd"] == pytest.approx(2)
    assert found["own_log_var_sd"] == pytest.approx(math.log(16) / 2)


def test_rms_norm_divides_by_the_root_mean_square():
    """Fails if an RMS norm is said to take out the mean: 3 and 4 have the mean square 12.5, not 0.25."""
    rows = np.array([[[3.0], [4.0]], [[-3.0], [-4.0]]])
    found = per_sample.layer_columns(site(rows, kind="rms_norm", eps=0.0))
    assert found["own_sd"] == pytest.approx(math.sqrt(12.5))
    assert found["own_log_var_sd"] == pytest.approx(0, abs=1e-12)


def test_groups_are_summed_up_by_their_median():
    """Fails if samples of different channels are mixed before the spread over samples is taken."""
    rows = some_rows()
    found = per_sample.layer_columns(site(rows, kind="instance_norm"))
    assert found["own_mean"] == pytest.approx(np.median(rows.mean(2).mean(0)))
    assert found["own_mean_sd"] == pytest.approx(np.median(rows.mean(2).std(0)))


def test_scaling_the_input_scales_the_divisor_and_not_its_spread():
    """Fails if own_log_var_sd is of the variance and not of its logarithm."""
    rows = some_rows()
    plain, scaled = (per_sample.layer_columns(site(rows * s, kind="layer_norm", eps=0.0)) for s in (1, 5))
    assert scaled["own_sd"] == pytest.approx(5 * plain["own_sd"])
    assert scaled["own_log_var_sd"] == pytest.approx(plain["own_log_var_sd"])


def test_norms_with_running_or_batch_statistics_compute_nothing_per_sample():
    """Fails if a batch norm is given statistics of samples."""
    rows = some_rows()
    for record in (site(rows), site(rows, **running_stats_of(rows))):
        assert all(math.isnan(value) for value in per_sample.layer_columns(record).values())


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm"])
def test_the_share_of_energy_in_the_means(kind):
    """Fails if it is a mean of ratios, or a share of variances: what centring would take out, over all values."""
    rows = some_rows(7) + 3
    means = [float(rows[i, :, p].mean()) for i in range(7) for p in range(rows.shape[2])]
    expected = sum(m * m for m in means) / len(means) / float((rows**2).mean())
    assert per_sample.layer_columns(site(rows, kind=kind))["mean_energy"] == pytest.approx(expected, rel=1e-9)


def test_the_share_of_energy_by_groups():
    """Fails if groups are weighed wrongly: instance norm has as many as channels."""
    rows = some_rows(7)
    expected = (rows.mean(2) ** 2).mean() / (rows**2).mean()
    assert per_sample.layer_columns(site(rows, kind="instance_norm"))["mean_energy"] == pytest.approx(
        expected
    )


def test_the_share_of_energy_has_its_ends():
    """Fails if equal channels are not all mean, or centred ones not without; nothing has no share."""
    alike = np.repeat(some_rows(7, 1), 3, axis=1)
    assert per_sample.layer_columns(site(alike, kind="layer_norm"))["mean_energy"] == pytest.approx(1)
    centred = some_rows(7) - some_rows(7).mean(1, keepdims=True)
    assert per_sample.layer_columns(site(centred, kind="layer_norm"))["mean_energy"] == pytest.approx(
        0, abs=1e-12
    )
    assert math.isnan(per_sample.layer_columns(site(some_rows() * 0, kind="rms_norm"))["mean_energy"])
