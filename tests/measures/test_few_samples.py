"""Whether a few samples make up a discrepancy: their share is that of those that were changed, and of nobody else."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.measures import causes
from bnprobe.measures.causes import preprocessing, samples
from measures.first_norms import PIXELS, inputs_of, stem_norm
from measures.sites import recording, site

RNG = np.random.default_rng(8)
N, C, P = 80, 12, 40
ROWS = RNG.normal(size=(N, C, P)) + 0.3 * RNG.normal(size=(N, C, 1)) + RNG.normal(size=(1, C, 1))
AS_TRAINED = {"running_mean": ROWS.mean((0, 2)), "running_var": ROWS.var((0, 2))}


def changed(n: int, gain: float = 30.0, offset: float = 0.0) -> np.ndarray:
    """The rows, the first n of them changed."""
    rows = ROWS.copy()
    rows[:n] = gain * rows[:n] + offset
    return rows


@pytest.mark.parametrize("n", [5, 10, 16])
@pytest.mark.parametrize(("gain", "offset"), [(30.0, 0.0), (1.0, 40.0), (255.0, -9.0)])
def test_their_share_is_found(n, gain, offset):
    """Fails if the share is not that of the samples that were changed, by whatever they were."""
    assert samples.few(site(changed(n, gain, offset), **AS_TRAINED)) == pytest.approx(n / N, rel=0.35)


@pytest.mark.parametrize("n", [0, 40, N])
def test_all_or_many_are_not_few(n):
    """Fails if a change of every sample, or of every other one, is blamed on a few."""
    assert np.isnan(samples.few(site(changed(n), **AS_TRAINED)))


def test_one_value_per_sample_is_no_crowd():
    """Fails if the squares of Gaussian values, which vary by themselves, look like a few large samples among many."""
    rows = 6 * RNG.normal(size=(400, C, 1))
    assert np.isnan(samples.few(site(rows, running_mean=np.zeros(C), running_var=np.ones(C))))


def test_one_channel_is_not_the_norm():
    """Fails if a few samples in one channel speak for all channels."""
    rows = ROWS.copy()
    rows[:8, 0] *= 30
    assert np.isnan(samples.few(site(rows, **AS_TRAINED)))


def test_no_other_cause_is_read_from_moments_of_two_populations():
    """Fails if one batch of eight that was not scaled is called a gain of all inputs, or gets another cause besides."""
    (row,) = causes.table(recording(site(changed(10), **AS_TRAINED))).itertuples()
    assert (row.cause, row.certain) == ("few samples", True)
    assert row.facts["few"] == pytest.approx(10 / N, rel=0.35)
    inputs = inputs_of(PIXELS)
    inputs[:8] = 255 * inputs[:8]
    assert preprocessing(stem_norm(inputs)).empty
