"""Errors of differences by their formulas, where few samples make every degree of freedom tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnprobe.measures import equivalence, scale, shift, standard_errors
from bnprobe.measures.dependence import Worth
from measures.sites import running_stats_of, site, some_rows

ROWS = some_rows(6)


def running(rows: np.ndarray) -> dict[str, np.ndarray]:
    stored = running_stats_of(rows)
    return {"running_mean": stored["running_mean"] + 0.3, "running_var": 1.5 * stored["running_var"]}


@pytest.mark.parametrize("worth", [(6.0, 5.0), (3.0, 2.0), (6.0, 1.0)])
@pytest.mark.parametrize("in_training", [1.0, 4.0])
def test_the_error_of_a_difference_by_satterthwaite(worth: tuple[float, float], in_training: float) -> None:
    """Fails if a degree is added, or the two parts are not weighed by the squares of their shares."""
    record = site(ROWS, **running(ROWS), training_batch=2)
    # momentum 0.1: (2 − 0.1) / 0.1 batches of 2
    n, degrees, n_running = *worth, 19 * 2
    variance = np.array([2.0, 0.5, 1e200])
    seen, stored = variance / n, variance * in_training / n_running
    share = seen / (seen + stored)
    expected = 1 / (share**2 / degrees + (1 - share) ** 2 / 5)
    found = standard_errors.error_of(variance, record, Worth(np.full(3, n), np.full(3, degrees)), in_training)
    np.testing.assert_allclose(found.se, np.sqrt(seen + stored), rtol=1e-12)
    np.testing.assert_allclose(found.degrees, np.minimum(expected, 5), rtol=1e-12)


def test_degrees_are_those_of_samples_where_the_running_statistics_are_as_noisy() -> None:
    """Fails if two parts of 5 degrees each have more than 5."""
    record = site(ROWS, **running(ROWS), training_batch=2)
    found = standard_errors.error_of(np.ones(3), record, Worth(np.full(3, 38.0), np.full(3, 5.0)))
    np.testing.assert_array_equal(found.degrees, 5.0)


def test_the_part_that_more_samples_would_remove() -> None:
    """Fails if the running statistics' part is taken for it: 38 samples there and 6, worth 24, here."""
    record = site(ROWS, **running(ROWS), training_batch=2)
    worth = Worth(np.full(3, 6.0), np.full(3, 5.0))
    np.testing.assert_allclose(
        standard_errors.sampling_part(record, worth), math.sqrt((1 / 6) / (1 / 6 + 1 / 38)), rtol=1e-12
    )
    np.testing.assert_allclose(
        standard_errors.sampling_part(record, worth, 4.0), math.sqrt((1 / 6) / (1 / 6 + 4 / 38)), rtol=1e-12
    )


def test_the_columns_of_a_shift_of_six_samples() -> None:
    """Fails if p has other degrees than 5, or the error another divisor: every number from the rows."""
    stored = running(ROWS)
    record = site(ROWS, **stored, training_batch=2, eps=0.0)
    means = ROWS.mean(2)
    between, var = means.var(0, ddof=1), ROWS.var((0, 2))
    times = np.maximum(stored["running_var"] / var, 1)
    seen, noise = between / 6, between * times / 38
    sigma = np.sqrt(stored["running_var"])
    share = seen / (seen + noise)
    degrees = np.minimum(1 / (share**2 / 5 + (1 - share) ** 2 / 5), 5)
    found = shift.channel_columns(record)
    z = (means.mean(0) - stored["running_mean"]) / np.sqrt(seen + noise)
    np.testing.assert_allclose(found["shift_se"], np.sqrt(seen + noise) / sigma, rtol=1e-9)
    np.testing.assert_allclose(found["shift_z"], z, rtol=1e-9)
    np.testing.assert_allclose(found["shift_p"], 2 * stats.t.sf(np.abs(z), degrees), rtol=1e-6)
    bound = equivalence.channel_columns(record)["shift_bound"]
    expected = np.abs(z) + stats.t.ppf(0.95, degrees)
    np.testing.assert_allclose(bound, expected * np.sqrt(seen + noise) / sigma, rtol=1e-6)


def test_the_error_of_a_scale_of_six_samples() -> None:
    """Fails if the log of a std has the error of the log of a variance, or another divisor."""
    record = site(ROWS, **running(ROWS), training_batch=2)
    about = ((ROWS - ROWS.mean((0, 2))[:, None]) ** 2).mean(2).var(0, ddof=1)
    expected = np.sqrt(about / 6 + about / 38) / (2 * ROWS.var((0, 2)))
    found = scale.relative_error(record)
    np.testing.assert_allclose(found.se, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.degrees, 5.0)
