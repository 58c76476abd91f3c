"""Whether "surely changed" is sure: calibration on data that did not change, power on data that did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measures.drawn import images, record_of
from measures.sites import recording
from scipy.stats import kstest, t

from bnprobe.comparison import differences, first_difference, pairs
from bnprobe.comparison.significance import _student, mean_test, scale_test
from bnprobe.comparison.spread import spread, unit
from bnprobe.recording import LayerRecord
from bnprobe.stats.jackknife import Estimate

MEMORY = {"running_mean": np.zeros(24), "running_var": np.ones(24)}


def drawn(rng: np.random.Generator, n: int, scale: float = 1.0, shift: float = 0.0) -> LayerRecord:
    """A record of n images whose pixels are correlated; channels independent, so that p values are, too."""
    rows = images(rng, n, common=0.0) * scale + shift
    record = record_of(rows, **MEMORY)
    return replace(record, post=record.pre.affine(1 / np.sqrt(1 + record.eps), 0.0))


def p_values(a: LayerRecord, b: LayerRecord) -> tuple[np.ndarray, np.ndarray]:
    """p of the means and of the deviations of the inputs."""
    sides = spread(a, "pre"), spread(b, "pre")
    return mean_test(*sides, unit(*sides, "pre"))[1], scale_test(*sides)[1]


@pytest.mark.parametrize(("n_a", "n_b"), [(40, 40), (60, 25)])
def test_p_values_of_data_that_did_not_change_are_uniform(rng, n_a, n_b):
    """Fails if pixels are counted for images, one side's error is left out, or a bias of the size is taken for a change.

    KS critical value at 1 in 1,000 for 60 * 24 values: 1.95 / sqrt(1440) = 0.051. The contrast of an image is
    common to its channels, so the deviations' p values come in 60 clusters: 1.95 / sqrt(60) = 0.25.
    """
    found = [p_values(drawn(rng, n_a), drawn(rng, n_b)) for _ in range(60)]
    means, scales = (np.concatenate(part) for part in zip(*found, strict=True))
    assert kstest(means, "uniform").statistic < 0.051
    assert kstest(scales, "uniform").statistic < 0.25
    for p in (means, scales):
        # binomial, three deviations, and the skewness of an estimated variance
        assert np.mean(p < 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60 / 4) / 2


def test_of_halves_of_the_same_data_at_most_the_nominal_share_is_called_changed(rng):
    """Fails if tests are not adjusted over all channels: 48 tests in each of 100 comparisons, q < 0.01.

    Of channels that did not change at most 1% are called; without the adjustment it would be 2%, the mean
    or the deviation, and more because the contrast of an image moves all its channels.
    """
    called = []
    for _ in range(100):
        found = differences(pairs(recording(drawn(rng, 30)), recording(drawn(rng, 30))))
        called.append(found.channels["pre_changed"].mean())
        assert first_difference(found.layers, 0.5) is None
    assert np.mean(called) <= 0.01
    assert np.mean(np.array(called) > 0) <= 0.1


def test_what_changed_is_called(rng):
    """Fails if the errors are so wide that nothing is ever sure: 0.6 deviations in the mean, or half more deviation."""
    clean = drawn(rng, 120)
    for other in (drawn(rng, 120, shift=0.6), drawn(rng, 120, scale=1.5)):
        found = differences(pairs(recording(clean), recording(other)))
        assert found.layers["pre_changed_share"][0] > 0.9
        assert found.layers["pre_gap"][0] > 3 * found.layers["pre_noise"][0]


def test_the_noise_is_the_gap_of_data_that_did_not_change(rng):
    """Fails if the noise of a gap leaves out the deviations, or is that of one side."""
    squares, noise = [], []
    for _ in range(60):
        row = differences(pairs(recording(drawn(rng, 40)), recording(drawn(rng, 25)))).layers.iloc[0]
        squares.append(row["pre_gap"] ** 2)
        noise.append(row["pre_noise"] ** 2)
    assert np.mean(squares) == pytest.approx(np.mean(noise), rel=0.1)


def test_a_paired_difference_of_rounding_is_none():
    """Fails if what the order of additions makes is tested, however small its error."""
    error = Estimate(np.full(3, 1e-7), np.full(3, 1000.0))
    p = _student(np.array([0.9e-5, -0.9e-5, 1.1e-5]), error)[1]
    assert p.tolist() == [1.0, 1.0, pytest.approx(2 * t.sf(110, 1000), abs=1e-12)]
    at_error = _student(np.array([1.0]), Estimate(np.array([0.5]), np.array([7.0])))[1]
    assert at_error == pytest.approx([2 * t.sf(2.0, 7.0)], rel=1e-9)


def test_one_channel_among_many_is_found(rng):
    """Fails if a layer's average hides the one channel that broke."""
    broken = images(rng, 120, common=0.0)
    broken[:, 7] += 2
    found = differences(pairs(recording(drawn(rng, 120)), recording(record_of(broken, **MEMORY))))
    assert found.channels["pre_changed"][7]
    assert found.channels["pre_gap"].idxmax() == 7


def test_too_few_images_give_no_certainty_and_no_error():
    """Fails if one image, or none, gives an error of zero and so a change that is sure."""
    rng = np.random.default_rng(3)
    one, many = drawn(rng, 1), drawn(rng, 40)
    found = differences(pairs(recording(one), recording(many)))
    assert found.channels["pre_shift_q"].isna().all()
    assert not found.channels["pre_changed"].any()
    assert np.isnan(found.layers["pre_noise"][0])


def test_constant_channels_that_moved_are_certain_and_others_untested(rng):
    """Fails if a channel without spread over images is never or always called changed."""
    a, b = images(rng, 20, common=0.0), images(rng, 20, common=0.0)
    for rows in (a, b):
        rows[:, :2] = 1.0
    b[:, 1] = 1.5
    found = differences(pairs(*(recording(record_of(rows, **MEMORY)) for rows in (a, b)))).channels
    assert np.isnan(found["pre_shift_q"][0])
    assert found["pre_shift_q"][1] == 0
    assert list(found["pre_changed"][:2]) == [False, True]
