"""Bounds that may be looked at after every batch: against the integral they come from, the definition, and streams."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bnprobe.stats.anytime import MIXED, adjusted_evidence, bound, evidence
from bnprobe.stats.significance import as_normal, as_student


@pytest.mark.parametrize(("z", "n"), [(0.0, 7), (2.5, 50), (-4.0, 900)])
def test_evidence_is_the_likelihood_of_all_sizes_of_a_shift_over_that_of_none(z, n):
    """Fails if the mixture has another width, or the exponent another factor: against the integral over shifts."""
    shift = np.linspace(-2, 2, 400_001)
    prior = np.exp(-(shift**2) * MIXED / 2) * math.sqrt(MIXED / (2 * math.pi))
    mean = z / math.sqrt(n)
    likelihood = np.exp(-n * ((mean - shift) ** 2 - mean**2) / 2)
    wanted = np.trapezoid(prior * likelihood, shift)
    assert evidence(np.array([z]), np.array([float(n)]))[0] == pytest.approx(wanted, rel=1e-6)


def test_the_bound_is_that_of_the_literature_and_where_evidence_says_so():
    """Fails if alpha is halved, or the bound and the evidence disagree about who drifted."""
    for n in (20.0, 300.0):
        for alpha in (0.05, 1e-5):
            half_width = math.sqrt(
                (n + 100) / n**2 * math.log((n + 100) / (100 * alpha**2))
            )  # of a mean, V = 1
            found = bound(np.array([n]), alpha)
            assert found[0] / math.sqrt(n) == pytest.approx(half_width)
            assert evidence(found, np.array([n]))[0] == pytest.approx(1 / alpha)
    assert np.isfinite(bound(np.array([50.0]), 1e-200)).all()


def test_q_of_evidence_by_its_definition():
    """Fails if the family is not counted, ranks run the wrong way, or ties and zeros break it."""
    found = np.array([0.0, 400.0, 90.0, 1.0, 400.0, np.inf])
    wanted = []
    for one in found:
        ks = [k for k in range(1, 7) if np.sort(found)[::-1][k - 1] <= one]
        tried = [6 / (k * np.sort(found)[::-1][k - 1]) for k in ks if np.sort(found)[::-1][k - 1] > 0]
        wanted.append(min([1.0, *tried]))
    np.testing.assert_allclose(adjusted_evidence(found), wanted)
    np.testing.assert_allclose(adjusted_evidence(np.array([50.0])), [0.02])


def test_nothing_known_is_no_evidence_and_infinity_all():
    """Fails if NaN counts for a drift, or an overflow warns."""
    z, n = np.array([np.nan, np.inf, -np.inf, 200.0]), np.full(4, 50.0)
    np.testing.assert_array_equal(evidence(z, n), [0, np.inf, np.inf, np.inf])


def test_normal_and_student_are_as_rare():
    """Fails if one tail is taken for both, or the wrong way round: 2.776 is the 97.5% quantile of 4 degrees."""
    found = as_normal(np.array([2.7764451, -2.7764451]), np.array([4.0, 4.0]))
    np.testing.assert_allclose(found, 1.959964, rtol=1e-6)
    np.testing.assert_allclose(as_student(found, np.array([4.0, 4.0])), 2.7764451, rtol=1e-6)


def test_a_stream_without_drift_hardly_ever_crosses_however_often_one_looks():
    """Fails if the bound is that of one look: 20,000 streams of 2,000 samples, looked at after every 50, alpha 1%.

    A bound for one look at 1%, 2.576 standard errors, is crossed at some time by every tenth.
    """
    rng = np.random.default_rng(8)
    n = 50.0 * np.arange(1, 41)
    z = rng.normal(0, math.sqrt(50), (20_000, 40)).cumsum(1) / np.sqrt(n)
    assert (np.abs(z) > 2.576).any(1).mean() > 0.07
    assert (np.abs(z) > bound(n, 0.01)).any(1).mean() < 0.01
    assert (np.abs(z) > bound(n, 0.01)).any(1).sum() > 0


def test_a_reference_of_few_samples_gives_no_false_alarms_either():
    """Fails if the noise of the reference is left out: 200 samples of it, streams as above.

    A stream's bound that takes the reference for exact is crossed by a fifth.
    """
    rng = np.random.default_rng(9)
    n = 50.0 * np.arange(1, 41)
    mean = rng.normal(0, math.sqrt(50), (20_000, 40)).cumsum(1) / n - rng.normal(0, 200**-0.5, (20_000, 1))
    m = 1 / (1 / n + 1 / 200)
    assert (np.abs(mean) * np.sqrt(n) > bound(n, 0.01)).any(1).mean() > 0.1
    assert (np.abs(mean) * np.sqrt(m) > bound(m, 0.01)).any(1).mean() < 0.01
