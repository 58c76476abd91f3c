"""Data against running statistics: the shift, its honest error, and the distance; laws, awkward cases, and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bnprobe.measures import shift
from bnprobe.recording import LayerRecord
from measures import reference
from measures.sites import alone, running_stats_of, site, some_rows

WITH_EPS = 1e-3


def summary(record: LayerRecord) -> dict[str, float]:
    return shift.layer_columns(record, alone(record))


def columns(rows: np.ndarray, **statistics: object) -> dict[str, np.ndarray]:
    return alone(site(rows, **statistics))


def test_hand_worked_numbers():
    """Fails if shift is in variances, forgets eps, has the wrong sign, or divides by the measured std.

    Values 0 and 4: mean 2, variance 4. Running mean 1 and variance 3 + eps 1: shift (2 - 1) / 2, ratio 2 / 2.
    """
    rows = np.array([[[0.0, 4.0]], [[4.0, 0.0]]])
    found = columns(rows, running_mean=1, running_var=3, eps=1.0)
    assert found["shift"] == pytest.approx(0.5)
    assert found["scale_ratio"] == pytest.approx(1.0)
    assert found["kl"] == pytest.approx(0.125)


def test_what_matches_its_statistics_is_not_shifted():
    """Fails if obs == running does not give d = 0, r = 1 and kl = 0."""
    rows = some_rows()
    found = columns(rows, eps=0.0, **running_stats_of(rows))
    np.testing.assert_allclose(found["shift"], 0, atol=1e-12)
    np.testing.assert_allclose(found["scale_ratio"], 1, rtol=1e-12)
    np.testing.assert_allclose(found["kl"], 0, atol=1e-12)
    np.testing.assert_allclose(found["shift_z"], 0, atol=1e-9)
    np.testing.assert_allclose(found["shift_q"], 1, rtol=1e-9)


def test_eps_counts_as_variance():
    """Fails if eps is left out: a dead channel (running_var below eps) would look infinitely far off."""
    rows = some_rows()
    with_eps = shift.channel_columns(site(rows, running_mean=0, running_var=1e-9, eps=WITH_EPS))
    as_variance = shift.channel_columns(site(rows, running_mean=0, running_var=1e-9 + WITH_EPS, eps=0.0))
    for name, values in with_eps.items():
        np.testing.assert_allclose(values, as_variance[name], rtol=1e-9, err_msg=name)


numbers = st.floats(-50, 50).map(lambda v: round(v, 3))


@given(arrays(np.float64, (4, 2, 3), elements=numbers), numbers, st.floats(1e-3, 1e3))
def test_distance_is_never_negative_and_zero_only_for_the_same(values, mean, var):
    """Fails if KL is taken the other way round without its terms, or a sign in it is wrong."""
    values = values + np.arange(3)  # no constant channel
    found = columns(values, running_mean=mean, running_var=var, eps=0.0, histograms=False)
    assert (found["kl"] >= -1e-12).all()
    d, r = found["shift"], found["scale_ratio"]
    far = (np.abs(d) > 0.01) | (np.abs(r - 1) > 0.01)
    assert (found["kl"][far] > 1e-5).all()


@given(st.floats(-3, 3), st.floats(0.2, 5))
def test_distance_is_that_of_observed_to_running(d, r):
    """Fails if KL(running || observed) is shown: checked against the integral of p log(p / q)."""
    x = np.linspace(-60, 60, 200_001)
    log_p = -(((x - d) / r) ** 2) / 2 - math.log(r)
    log_q = -(x**2) / 2
    p = np.exp(log_p) / math.sqrt(2 * math.pi)
    integral = float(np.trapezoid(p * (log_p - log_q), x))
    two = np.array([[[d - r, d + r]], [[d - r, d + r]]])  # mean d, variance r^2
    found = columns(two, running_mean=0, running_var=1, eps=0.0, histograms=False)["kl"][0]
    assert found == pytest.approx(integral, rel=1e-6, abs=1e-8)


def test_moving_and_scaling_everything_changes_nothing():
    """Fails if any column depends on the unit of the inputs."""
    rows = some_rows()
    statistics = {"running_mean": np.array([0.1, 4.0, 9.0]), "running_var": np.array([0.3, 2.0, 80.0])}
    plain = columns(rows, eps=0.0, **statistics)
    moved = columns(
        rows * -7 + 3,
        eps=0.0,
        running_mean=statistics["running_mean"] * -7 + 3,
        running_var=statistics["running_var"] * 49,
    )
    for name in ("scale_ratio", "kl", "shift_se", "shift_q"):
        np.testing.assert_allclose(moved[name], plain[name], rtol=1e-7, err_msg=name)
    for name in ("shift", "shift_z"):
        np.testing.assert_allclose(moved[name], -plain[name], rtol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("stored", "eps", "expected"),
    [(4.0, 0.0, 0.25), (3.0, 1.0, 0.5), (0.0, 0.0, math.inf), (-2.0, 1.0, math.nan)],
)
def test_the_variance_ratio_where_the_divisor_is_small(stored, eps, expected):
    """Fails if a norm that divides by 0 has no ratio, or one whose root is not defined has one; inputs vary by 1."""
    rows = np.array([[[-1.0, 1.0]], [[1.0, -1.0]]])
    with np.errstate(invalid="ignore"):
        record = site(rows, running_mean=0, running_var=stored, eps=eps)
    np.testing.assert_array_equal(shift.variance_ratio(record), [expected])


def test_a_constant_channel_is_infinitely_far_and_has_no_z():
    """Fails if a channel without variance raises, warns, or reads as being on its running statistics.

    Its Gaussian is a point: KL is infinite, the ratio 0; a mean that no image changes has no error to divide by.
    """
    found = columns(some_rows() * 0 + 2, running_mean=1, running_var=4, eps=0.0)
    np.testing.assert_array_equal(found["shift"], [0.5] * 3)
    np.testing.assert_array_equal(found["scale_ratio"], 0)
    np.testing.assert_array_equal(found["kl"], math.inf)
    assert np.isnan(found["shift_z"]).all()
    assert np.isnan(found["shift_q"]).all()


def test_one_image_has_no_error():
    """Fails if a standard error is made of the pixels of one image."""
    rows = some_rows(1)
    found = columns(rows, running_mean=0, running_var=1)
    assert np.isfinite(found["shift"]).all()
    assert np.isfinite(found["kl"]).all()
    for name in ("shift_se", "shift_z", "shift_q"):
        assert np.isnan(found[name]).all(), name
    found = summary(site(rows, running_mean=0, running_var=1))
    assert math.isnan(found["shifted_share"])
    assert found["shift_rms"] > 0


def test_without_running_statistics_nothing_is_defined():
    """Fails if a norm without running statistics is compared with zeros and ones."""
    for kind in ("batch_norm", "layer_norm", "instance_norm"):
        record = site(some_rows(), kind=kind)
        for name, values in shift.channel_columns(record).items():
            assert values.shape == (3,), name
            assert np.isnan(values).all(), name
        assert all(math.isnan(value) for value in summary(record).values())


def test_poisoned_channels_are_nan_and_leave_the_others_alone():
    """Fails if a NaN or negative running variance warns, or takes its neighbours' q with it."""
    rows = some_rows(n_channels=5)
    statistics = {"running_mean": [0, 0, np.nan, np.inf, 0], "running_var": [1, np.nan, 1, 1, -1]}
    poison = shift.channel_columns(site(rows, **statistics))
    healthy = shift.channel_columns(site(rows[:, :1], running_mean=0, running_var=1))
    for name, values in poison.items():
        assert values[0] == pytest.approx(healthy[name][0]), name
    for name in ("shift", "kl", "shift_z", "shift_p"):
        assert not np.isfinite(poison[name][1:]).any(), name
    assert np.isnan(poison["scale_ratio"][[1, 4]]).all()
    assert math.isfinite(summary(site(rows, running_mean=[0, 0, 0, np.inf, 0], running_var=1))["shift_rms"])


# The error of the running statistics itself


@pytest.mark.parametrize(
    ("momentum", "tracked", "images"),
    [
        (0.1, 40, 19 * 32),
        (0.1, None, 19 * 32),
        (1.0, 5, 32),
        (0.01, 1000, 199 * 32),
        (None, 25, 25 * 32),
        (None, 0, 19 * 32),
        (None, None, 19 * 32),
    ],
)
def test_what_the_running_mean_is_worth(momentum, tracked, images):
    """Fails if (2 - m)/m is inverted, momentum None is taken for 0.1 of a batch, or a frozen norm (none) raises."""
    rows = some_rows()
    kind = {"momentum": momentum, "n_batches_tracked": tracked}
    found = columns(rows, eps=0.0, **kind, **running_stats_of(rows))
    between, var = rows.mean(2).var(0, ddof=1), rows.var((0, 2))
    expected = np.sqrt((between / len(rows) + between / images) / var)
    np.testing.assert_allclose(found["shift_se"], expected, rtol=1e-9)


def test_momentum_zero_never_moves():
    """Fails if a momentum of 0 divides by zero: such a mean has no noise."""
    rows = some_rows()
    found = columns(rows, running_mean=0, running_var=1, eps=0.0, momentum=0.0)
    np.testing.assert_allclose(found["shift_se"], np.sqrt(rows.mean(2).var(0, ddof=1) / len(rows)), rtol=1e-6)


def test_the_error_of_a_moving_average_is_the_one_assumed():
    """Fails if the variance of a moving average is not m / (2 - m) of a batch's: 400 steps, 4,000 averages."""
    rng = np.random.default_rng(11)
    average, m = np.zeros(4000), 0.1
    for _ in range(400):
        average = (1 - m) * average + m * rng.normal(size=4000)
    assert average.var() == pytest.approx(m / (2 - m), rel=0.06)


# Many channels at once


def by_hand(p: list[float]) -> list[float]:
    """Benjamini-Hochberg as in the paper's steps, by a loop from the largest p to the smallest."""
    q, smallest = [math.nan] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        i = sorted(range(len(p)), key=lambda j: p[j])[rank - 1]
        smallest = min(smallest, p[i] * len(p) / rank)
        q[i] = smallest
    return q


def test_q_is_that_of_benjamini_and_hochberg():
    """Fails if q is p, Bonferroni's p, or not monotone; and if degrees of freedom are pixels."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(6, 40, 9)) + rng.normal(size=(6, 40, 1)) + np.linspace(0, 3, 40)[:, None]
    found = columns(rows, running_mean=0, running_var=1)
    p_of_means = [reference.two_sided(float(one), 5) for one in found["shift_z"]]
    expected = by_hand(
        [*p_of_means, *found["scale_p"]]
    )  # whose skewness tests/measures/test_scale.py looks after
    np.testing.assert_allclose(np.concatenate([found["shift_q"], found["scale_q"]]), expected, rtol=1e-8)
    order = np.argsort(-np.abs(found["shift_z"]))
    assert (np.diff(found["shift_q"][order]) >= 0).all()
    assert (found["shift_q"] <= 1).all()


def test_known_probabilities_of_students_t():
    """Fails if the reference itself is wrong: printed tables say t = 2.571 for 5 degrees and 5 percent, two-sided."""
    assert reference.two_sided(2.5706, 5) == pytest.approx(0.05, rel=1e-4)
    assert reference.two_sided(12.7062, 1) == pytest.approx(0.05, rel=1e-4)
    assert reference.two_sided(1.9842, 99) == pytest.approx(0.05, rel=1e-3)
    assert reference.two_sided(0.0, 7) == pytest.approx(1.0)


def test_channels_that_cannot_be_tested_do_not_count_as_tests():
    """Fails if NaN channels enlarge the number of tests, which would hide real shifts."""
    rows = some_rows(8, 4)
    rows[:, 3] = 7.0
    all_four = columns(rows, running_mean=[0, 5, 9, 0], running_var=1)["shift_q"]
    three = columns(rows[:, :3], running_mean=[0, 5, 9], running_var=1)["shift_q"]
    np.testing.assert_allclose(all_four[:3], three, rtol=1e-12)
    assert math.isnan(all_four[3])


# Coverage, by simulation


def simulated(n_channels: int, n_images: int, n_positions: int, seed: int) -> np.ndarray:
    """Images with a mean of their own (half of the variance), around 0, with total variance 1."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(n_images, n_channels, 1))
    return math.sqrt(0.5) * own + math.sqrt(0.5) * rng.normal(size=(n_images, n_channels, n_positions))


def running_mean_of(n_channels: int, seed: int, momentum: float = 0.1) -> np.ndarray:
    """What 200 steps of training with 32 images a batch leave in the running mean of such data."""
    rng = np.random.default_rng(seed)
    sd = math.sqrt(0.5 / 32 + 0.5 / 32 / 16)
    mean = np.zeros(n_channels)
    for _ in range(200):
        mean = (1 - momentum) * mean + momentum * rng.normal(size=n_channels) * sd
    return mean


@pytest.mark.parametrize("n_images", [25, 200, 2000], ids=lambda n: f"{n} images")
def test_z_of_data_that_did_not_move_has_variance_one(n_images):
    """Fails if the error counts pixels, forgets the images, or forgets the noise of the running statistics.

    700 channels of data from the same source as the running statistics: z must spread by about 1 and hardly any channel
    may be called shifted. With few images the first term rules, with many that of the running statistics.
    """
    rows = simulated(700, n_images, 16 if n_images < 2000 else 4, seed=n_images)
    statistics = running_mean_of(700, seed=1)
    record = site_of(rows, statistics)
    z = shift.channel_columns(record)["shift_z"]
    assert 0.85 < z.std() < 1.15
    assert abs(z.mean()) < 0.15
    assert summary(record)["shifted_share"] < 0.01


@pytest.mark.parametrize("contrast", [0.7, 0.5, 1.4])
def test_z_of_data_that_vary_less_has_variance_one(contrast):
    """Fails if the running mean is given the noise of the data seen, which vary less: z would spread by 1.7 at half.

    The true mean did not move. Data that vary more say nothing of those of training: their own noise is the smaller part.
    """
    rows = simulated(700, 2000, 4, seed=5) * contrast
    z = shift.channel_columns(site_of(rows, running_mean_of(700, seed=1)))["shift_z"]
    assert (0.85 if contrast < 1 else 0.6) < z.std() < 1.15


def test_the_running_mean_has_the_noise_of_training():
    """Fails if V is not as much larger in training as the variance was, or shrinks where the data vary more."""
    rows = some_rows()
    between, var = rows.mean(2).var(0, ddof=1), rows.var((0, 2))
    found = columns(rows, running_mean=0, running_var=var * [4, 1, 0.25], eps=0.0)
    expected = [
        np.sqrt(between[c] * (1 / 5 + times / 608) / (var[c] * ratio))
        for c, (times, ratio) in enumerate([(4, 4), (1, 1), (1, 0.25)])
    ]
    np.testing.assert_allclose(found["shift_se"], expected, rtol=1e-9)


def test_an_error_that_counts_pixels_would_cry_wolf():
    """The control: on the same data, sigma / sqrt(N * P) makes z spread several times too wide."""
    rows = simulated(700, 200, 16, seed=200)
    naive = rows.mean((0, 2)) / (rows.std((0, 2)) / math.sqrt(200 * 16))
    honest = shift.channel_columns(site_of(rows, np.zeros(700), momentum=1e-9))["shift_z"]
    assert naive.std() > 2.5
    assert 0.9 < honest.std() < 1.1


def test_a_real_shift_is_found():
    """Fails if the test never fires: half of the channels moved by half a standard deviation."""
    rows = simulated(100, 200, 4, seed=7)
    rows[:, ::2] += 0.5
    q = alone(site_of(rows, np.zeros(100)))["shift_q"]
    assert (q[::2] < 0.01).all()
    assert (q[1::2] < 0.01).mean() < 0.1


def site_of(rows: np.ndarray, running_mean: np.ndarray, momentum: float = 0.1) -> object:
    """Like `site`, fast: the statistics of many values by numpy, whose exactness other tests settle."""
    from bnprobe.stats import ImageMoments, Moments

    c = rows.shape[1]
    small = site(rows[:2, :, :1] + 1e-9, running_mean=running_mean, running_var=1.0, histograms=False)
    each = Moments.of(rows, axis=2)
    changes = {"pre": each.pool(), "pre_images": ImageMoments.of(each, np.zeros(c)), "n_images": len(rows)}
    return type(small)(**{**vars(small), **changes, "eps": 0.0, "momentum": momentum})


# The layer's summary


def test_the_typical_ratio_of_variances_has_eps_on_both_sides():
    """Fails if data that agree with the running statistics are said to vary less, because eps is large."""
    rows = np.stack([np.array([[-1.0, 1.0], [1.0, -1.0]]) * s for s in (1, 2, 3)], axis=1)
    statistics = {"running_mean": 0, "running_var": [1, 4, 9]}
    assert summary(site(rows, eps=5.0, **statistics))["var_ratio_median"] == pytest.approx(1)
    statistics["running_var"] = [2, 1, 3]
    found = summary(site(rows, eps=5.0, **statistics))["var_ratio_median"]
    assert found == pytest.approx(np.median([6 / 7, 9 / 6, 14 / 8]))


def test_summary_of_hand_made_channels():
    """Fails if shift_rms is a mean of absolute values, or the variance ratio one of standard deviations."""
    rows = np.stack(
        [np.array([[-1.0, 1.0], [1.0, -1.0]]) * s + m for s, m in ((1, 3), (2, 4), (3, 0))], axis=1
    )
    found = summary(site(rows, running_mean=0, running_var=1, eps=0.0))
    assert found["shift_rms"] == pytest.approx(5 / math.sqrt(3))
    assert found["var_ratio_median"] == pytest.approx(4)
    kl = sorted((r * r + d * d - 1) / 2 - math.log(r) for r, d in ((1, 3), (2, 4), (3, 0)))
    assert found["kl_median"] == pytest.approx(kl[1])


def test_shifted_share_counts_only_channels_that_were_tested():
    """Fails if channels without q count as not shifted."""
    rows = simulated(10, 60, 3, seed=2)
    rows[:, :4] += 3
    rows[:, 8:] = 1.5
    found = summary(site(rows, running_mean=np.zeros(10), running_var=1.0, histograms=False))
    assert found["shifted_share"] == pytest.approx(4 / 8)


def test_scaled_share_is_that_of_scales():
    """Fails if means count as scales, or channels without q count as unchanged."""
    rows = simulated(10, 60, 3, seed=2)
    rows[:, 4:7] *= 5
    rows[:, 8:] = 1.5
    found = summary(site(rows, running_mean=np.zeros(10), running_var=1.0, histograms=False))
    assert found["scaled_share"] == pytest.approx(3 / 8)
