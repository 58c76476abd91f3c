"""The scale against the running statistics: its error by loops and simulation, and the bias of small batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.measures import scale, shift, within_sample
from measures import drawn, reference
from measures.sites import alone, running_stats_of, site, some_rows

NAMES = ("scale_se", "scale_z", "scale_q")


def columns(rows: np.ndarray, **statistics: object) -> dict[str, np.ndarray]:
    record = site(rows, **statistics)
    return {**alone(record), **within_sample.channel_columns(record)}


def by_hand(values: np.ndarray, running_var: float, eps: float, images: float) -> tuple[float, float]:
    """Standard error and z of one channel (N, P), by loops over images; the running statistics are worth `images` images."""
    n, p = values.shape
    mean = math.fsum(values.ravel()) / values.size
    var = math.fsum((v - mean) ** 2 for v in values.ravel()) / values.size
    squares = [math.fsum((v - mean) ** 2 for v in image) / p for image in values]
    of_means = [math.fsum(image) / p for image in values]
    spread, between = float(np.var(squares, ddof=1)), float(np.var(of_means, ddof=1))
    of_var = math.sqrt(spread / n + spread / images)
    seen = var + between / n
    size = 32 * p
    stored = running_var / (1 - between / seen / 32) * (size - 1) / size
    of_log = of_var / (2 * var)
    se = math.sqrt(var / (running_var + eps)) * of_log
    return se, math.log(math.sqrt((seen + eps) / (stored + eps))) / of_log


def test_error_and_z_agree_with_loops():
    """Fails if squares are about the image's own mean, the delta method has a wrong factor, or eps is one-sided."""
    rows = some_rows(7)
    found = columns(rows, running_mean=0.5, running_var=[0.3, 200, 2], eps=0.1)
    for c, var in enumerate((0.3, 200, 2)):
        se, z = by_hand(rows[:, c], var, 0.1, 19 * 32)
        assert found["scale_se"][c] == pytest.approx(se, rel=1e-9)
        assert found["scale_z"][c] == pytest.approx(z, rel=1e-9)
    assert (found["scale_z"] < 0).any()
    assert (found["scale_z"] > 0).any()
    expected = []
    for c, z in enumerate(found["scale_z"]):
        squares = ((rows[:, c] - rows[:, c].mean()) ** 2).mean(1)
        of_log = np.std(squares, ddof=1) / rows[:, c].var() / 2
        # 7 images were measured, the running statistics are worth 608
        a = of_log**2 / 7 / (of_log * math.sqrt(1 / 7 + 1 / 608))
        cautious = min(z + a * (1 + z**2) + a**2 * z**3 / 3, 0) if z < 0 else z
        expected.append(reference.two_sided(float(cautious), 6))
    np.testing.assert_allclose(found["scale_p"], expected, rtol=1e-6)


def test_likeness_of_an_images_values():
    """Fails if the design effect is a share, or the correlation is not of pairs: against all pairs of one image."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(400, 2, 1)) * [[1], [0.2]] + rng.normal(size=(400, 2, 5))
    found = columns(rows)
    values = (rows - rows.mean((0, 2))[:, None]) / rows.std((0, 2))[:, None]
    pairs = [np.mean([i[a] * i[b] for i in values[:, 1] for a in range(5) for b in range(5) if a != b])]
    assert found["icc"][1] == pytest.approx(pairs[0], abs=0.003)
    assert found["icc"][0] == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(found["design_effect"], 1 + 4 * found["icc"], rtol=1e-9)
    assert within_sample.layer_columns(site(rows))["design_effect_median"] == pytest.approx(
        np.median(found["design_effect"])
    )


def test_constant_images_count_as_one_value_each():
    """Fails if 14 equal pixels are worth more than one."""
    rows = np.repeat(some_rows(6, n_positions=1), 14, axis=2)
    found = columns(rows)
    # the spread between images has divisor n - 1, the variance n
    np.testing.assert_allclose(found["design_effect"], 14 * 6 / 5, rtol=1e-9)
    assert np.isnan(columns(rows[:, :, :1])["icc"]).all()


def test_eps_moves_neither_side():
    """Fails if a dead channel (running_var below eps) is significantly shrunk although it varies just as in training."""
    rows = some_rows(200, n_positions=4) * 1e-4
    found = columns(rows, eps=1e-3, **running_stats_of(rows))
    assert (np.abs(found["scale_z"]) < 1).all()
    assert (shift.channel_columns(site(rows, eps=1e-3, **running_stats_of(rows)))["scale_ratio"] < 0.6).any()


def test_without_running_statistics_only_the_likeness_is_defined():
    """Fails if a layer norm is compared with running statistics that it does not have."""
    found = columns(some_rows(), kind="layer_norm")
    for name in NAMES:
        assert np.isnan(found[name]).all(), name
    assert np.isfinite(found["icc"]).all()


@pytest.mark.parametrize("rows", [some_rows(1), some_rows() * 0 + 2, some_rows() * np.nan])
def test_one_image_a_constant_channel_or_nothing_has_no_error(rows):
    """Fails if a scale is called moved on one image, or a warning escapes."""
    found = columns(rows, running_mean=0, running_var=1)
    assert np.isnan(found["scale_z"]).all()
    assert np.isnan(found["scale_q"]).all()


@pytest.mark.parametrize("n_images", [100, 2000])
def test_z_of_data_that_did_not_move_is_standard_normal(n_images):
    """Fails if the error counts pixels or forgets the running statistics' noise (z too wide), or if the bias of a batch's
    variance is left in: a batch of 32 correlated images varies by 1 percent less than the population.

    40 memories of 24 channels; channels share their images, so they are worth about 100 independent z.
    """
    rng = np.random.default_rng(12)
    z = [
        scale.channel_columns(
            drawn.record_of(drawn.images(rng, n_images, common=0.0), **drawn.statistics(rng, common=0.0))
        )
        for _ in range(40)
    ]
    z = np.array([found["scale_z"] for found in z])
    assert 0.8 < z.std() < 1.2
    assert abs(z.mean()) < 0.25


def test_a_batch_varies_less_than_the_population():
    """Fails if the textbook case comes out otherwise: 4 images of 16 values, 1 between and 1 inside, give 1.762.

    By simulation here; `log_ratio` undoes it for batches of 32.
    """
    rng = np.random.default_rng(6)
    x = rng.normal(size=(40_000, 4, 1)) + rng.normal(size=(40_000, 4, 16))
    assert x.reshape(-1, 64).var(1, ddof=1).mean() == pytest.approx(1.762, abs=0.015)
    # the formula of `log_ratio`: v (1 - V/v/B) n/(n - 1), V = 1 + 1/16 the variance of an image's mean
    assert pytest.approx(1.762, abs=5e-4) == 2 * (1 - (1 + 1 / 16) / 2 / 4) * 64 / 63
    rows = rng.normal(size=(6000, 3, 1)) + rng.normal(size=(6000, 3, 16))
    expected = 2 * (1 - (1 + 1 / 16) / 2 / 32) * 512 / 511  # what training on batches of 32 stores
    left = scale.log_ratio(drawn.record_of(rows, np.zeros(3), np.full(3, expected)))
    assert np.abs(left).max() < 0.02
