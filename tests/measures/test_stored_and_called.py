"""Small measures by numpy: detail, headroom, logs of calls, values of one sample, and what a running variance averages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures import call_log, detail, headroom, within_sample
from bnprobe.measures.stored_variance import var_as_stored
from bnprobe.recording.neighbours import Folded, Neighbours, Stem
from measures.sites import call_log as log
from measures.sites import site, some_rows

NAN = float("nan")
ROWS = some_rows(7)
C = 6
ONE = np.ones(C)


def fine(ratio: list[float], coarse: list[float] | None = None, **changes: Any) -> float:
    """Detail of a norm whose filters are this coarse, and whose channels vary so many times as remembered."""
    coarse = [0.1, 0.2, 0.5, 0.6, 0.9, 1.0] if coarse is None else coarse
    n = len(ratio)
    rows = some_rows(9, n)
    var = rows.var((0, 2)) / np.square(ratio)
    stem = Stem(np.array(coarse)[:, None] * [[0.6, 0.8]] * 2.0, None)
    folded = Folded(2 * np.ones(n), -np.ones(n), np.ones(n), None)
    fields = {
        "running_mean": 0.0,
        "running_var": var,
        "eps": 0.0,
        "neighbours": Neighbours("relu", stem=stem, folded=folded),
    }
    return float(detail.layer_columns(site(rows, **{**fields, **changes}))["detail_ratio"])


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        ([1, 1, 1, 1, 1, 1], 1.0),
        ([0.5, 0.7, 9, 9, 1, 1], 0.6),
        ([0.5, 0.7, 9, 9, 1.2, 1.2], 0.5),
        ([2, 4, 9, 9, 0.9, 1.1], 3.0),
        ([1, 1, 9, 9, 1.24, 1.24], 1 / 1.24),
        ([1, 1, 9, 9, 1.26, 1.26], NAN),
        ([1, 1, 9, 9, 0.81, 0.81], 1 / 0.81),
        ([1, 1, 9, 9, 0.79, 0.79], NAN),
        ([1, 1, 9, 9, 0.7, 1.39], 1 / 1.045),
        ([1, 1, 9, 9, 0.66, 1.34], NAN),
    ],
)
def test_detail_is_what_fine_filters_see_beside_coarse_ones(ratio: list[float], expected: float) -> None:
    """Fails if fine and coarse change places, other thirds are compared, or areas that changed are believed."""
    assert fine(ratio) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_detail_needs_filters_and_statistics() -> None:
    """Fails if too few filters, an eps larger than the variance, or a norm that is not the first tells detail."""
    assert fine([1, 1, 1], [0.1, 0.5, 1.0]) != fine([1, 1, 1, 1], [0.1, 0.2, 0.9, 1.0])
    assert np.isnan(fine([1, 1, 1], [0.1, 0.5, 1.0]))
    assert fine([0.5, 0.7, 1, 1], [0.1, 0.2, 0.9, 1.0]) == pytest.approx(0.6)
    assert np.isnan(fine([1] * 6, eps=1e9))
    assert np.isnan(fine([1] * 6, running_mean=None, running_var=None))
    assert np.isnan(fine([1] * 6, neighbours=None))
    assert np.isnan(fine([1] * 6, neighbours=Neighbours("relu", folded=Folded(ONE, ONE, ONE, None))))
    assert np.isnan(fine([1] * 6, neighbours=Neighbours("relu", stem=Stem(np.ones((6, 2)), None))))


STORED = {"running_mean": [1.0, -20.0, NAN], "running_var": [4.0, 9.0, 1.0]}


def test_the_largest_input_is_that_of_either_sign() -> None:
    """Fails if the smallest value, which may be far below 0, is left out, or running statistics go before data."""
    for rows, expected in ((ROWS, np.abs(ROWS).max()), (-ROWS, np.abs(ROWS).max())):
        found = headroom.layer_columns(site(rows, **STORED))
        assert found["largest_input"] == expected
        assert found["half_headroom"] == pytest.approx(65504 / expected)


@pytest.mark.parametrize(
    ("stored", "largest"),
    [(STORED, 38.0), ({"running_mean": NAN, "running_var": 1.0}, NAN), ({"running_mean": 0.0, "running_var": 0.0}, 0.0)],
)  # fmt: skip
def test_without_data_the_running_statistics_tell_the_largest_input(
    stored: dict[str, Any], largest: float
) -> None:
    """Fails if it is not six deviations beyond the mean, −20 − 6 · 3, or nothing known has headroom."""
    found = headroom.layer_columns(site(ROWS[:0], **stored))
    assert found["largest_input"] == pytest.approx(largest, nan_ok=True)
    expected = 65504 / largest if largest > 0 else NAN
    assert found["half_headroom"] == pytest.approx(expected, nan_ok=True)
    for missing in ("running_mean", "running_var"):
        bare = replace(site(ROWS[:0], **stored), **{missing: None})
        assert np.isnan(headroom.layer_columns(bare)["largest_input"])


@pytest.mark.parametrize(
    ("gamma", "beta", "word"),
    [
        (True, True, "both"),
        (True, False, "γ"),
        (False, True, "β"),
        (False, False, "none"),
        (None, None, ""),
        (True, None, "γ"),
        (None, False, "none"),
    ],
)
def test_which_vectors_learn(gamma: bool | None, beta: bool | None, word: str) -> None:
    """Fails if one that is not there counts as learning, or γ and β are exchanged."""
    kept = log(gamma_learns=gamma, beta_learns=beta)
    assert call_log.layer_columns(site(ROWS, call_log=kept))["learns"] == word


def test_what_the_log_says_and_what_it_does_not() -> None:
    """Fails if a number that was not kept is one, or a norm without a log has any."""
    found = call_log.layer_columns(site(ROWS, call_log=log(fewest_values=3, n_updates=None)))
    assert found["fewest_values"] == 3
    assert np.isnan(float(found["n_updates"]))
    bare = call_log.layer_columns(replace(site(ROWS), call_log=None))
    assert set(bare) == {column.name for column in call_log.COLUMNS}
    assert bare.pop("learns") == ""
    assert np.isnan([float(value) for value in bare.values()]).all()


def test_how_far_running_means_moved() -> None:
    """Fails if it is not in running deviations, eps included, or a channel that is not finite spoils the others."""
    stored = {"running_mean": [1.0, 2.0, NAN], "running_var": [3.0, 8.0, 1.0], "eps": 1.0}
    kept = log(running_mean_after=np.array([3.0, -1.0, 5.0]))
    found = call_log.layer_columns(site(ROWS, call_log=kept, **stored))
    assert found["memory_moved"] == pytest.approx(np.sqrt((1.0**2 + 1.0**2) / 2))
    for changes in ({"running_mean": None}, {"running_var": None}, {"running_mean": NAN}):
        record = site(ROWS, call_log=kept, **{**stored, **changes})
        assert np.isnan(float(call_log.layer_columns(record)["memory_moved"]))
    assert np.isnan(float(call_log.layer_columns(site(ROWS, call_log=log(), **stored))["memory_moved"]))


def test_how_many_values_of_a_sample_count_as_one() -> None:
    """Fails if the design effect has another divisor: positions times the variance of samples' means over that of values."""
    found = within_sample.channel_columns(site(ROWS))
    effect = ROWS.shape[2] * ROWS.mean(2).var(0, ddof=1) / ROWS.var((0, 2))
    np.testing.assert_allclose(found["design_effect"], effect, rtol=1e-9)
    np.testing.assert_allclose(found["icc"], (effect - 1) / (ROWS.shape[2] - 1), rtol=1e-9)
    assert within_sample.layer_columns(site(ROWS))["design_effect_median"] == pytest.approx(np.median(effect))
    alone = within_sample.channel_columns(site(ROWS[:, :, :1]))
    assert np.isnan(alone["icc"]).all()
    two = within_sample.channel_columns(site(ROWS[:, :, :2]))
    assert np.isfinite(two["icc"]).all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_what_a_running_variance_averages(n: int) -> None:
    """Fails if an instance norm's is that between samples too, or a batch norm's is not."""
    rows = ROWS[:n]
    np.testing.assert_allclose(var_as_stored(site(rows)), rows.var((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(
        var_as_stored(site(rows, kind="instance_norm")), rows.var(2).mean(0), rtol=1e-9
    )
    flat = np.full((3, 2, 4), 5.0) + np.arange(3.0)[:, None, None]
    assert (var_as_stored(site(flat, kind="instance_norm")) >= 0).all()
    np.testing.assert_allclose(var_as_stored(site(flat, kind="instance_norm")), 0, atol=1e-12)
