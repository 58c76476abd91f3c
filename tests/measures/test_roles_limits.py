"""Roles where a limit decides: what eps divides, what extremes settle, and channels that saw nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bnprobe.measures import roles
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours, Stem
from measures.sites import site, some_rows


def hair(value: float, to: float) -> float:
    return float(np.nextafter(value, to))


def of_var(var: Any, **changes: Any) -> LayerRecord:
    return site(
        some_rows(n_channels=np.size(var)), gamma=-2.0, beta=0.0, running_mean=0.0, running_var=var, **changes
    )


def test_gamma_reaches_the_output_where_the_variance_is_a_hundredth_of_eps() -> None:
    """Fails if a hundredth itself is little, a variance of 0 beside others is none, or they must be above 1."""
    var = np.array([0.0, hair(0.01, 0), 0.01, 0.5])
    expected = 2 * np.array([0.0, np.sqrt(0.01 / 1.01), 1.0, 1.0])
    np.testing.assert_allclose(roles.effective_gamma(of_var(var, eps=1.0)), expected, rtol=1e-12)


@pytest.mark.parametrize("var", [[0.0, 0.0, 0.0], [-1e-3, 2.0, np.nan]])
def test_variances_that_were_set_so_or_are_none_leave_gamma_alone(var: list[float]) -> None:
    """Fails if a buffer of zeros, or a channel whose variance is no number, takes γ away."""
    np.testing.assert_array_equal(roles.effective_gamma(of_var(var, eps=1.0)), 2.0)


def test_the_error_is_the_average_of_channels_that_fired_or_not() -> None:
    """Fails if the median stands for it, or one channel without outputs makes it NaN: .5 is predicted for each."""
    rows = np.random.default_rng(0).normal(size=(5, 4, 2))
    rows[:, 3] = np.nan
    made = site(rows, gamma=1.0, beta=0.0, running_mean=0.0, running_var=1.0)
    made = replace(made, n_positive=np.array([5.0, 4.0, 1.0, 0.0]))
    assert roles.layer_columns(made)["fires_error"] == pytest.approx((0.0 + 0.1 + 0.4) / 3)


def test_a_channel_without_outputs_proves_no_prediction() -> None:
    """Fails if it counts with those predicted dead, or with the dead: of two that were seen, one is dead."""
    rows = np.random.default_rng(0).normal(size=(5, 4, 2))
    rows[:, 0] = np.nan
    made = site(rows, gamma=1.0, beta=[-9.0, -9.0, -9.0, 0.0], running_mean=0.0, running_var=1.0)
    made = replace(made, neighbours=Neighbours("relu"), n_positive=np.array([0.0, 0.0, 3.0, 0.0]))
    found = roles.layer_columns(made)
    assert (found["dead_precision"], found["dead_recall"]) == (1 / 2, 1 / 2)
    # without data the vectors decide
    assert (found["n_dead"], found["n_mixed"]) == (3, 1)


@pytest.mark.parametrize(("mismatch", "role"), [(0.05, "dead"), (hair(0.05, 1), "unknown")])
def test_an_output_within_a_twentieth_is_the_formulas(mismatch: float, role: str) -> None:
    """Fails if the limit moves, or belongs to the other side."""
    made = site(some_rows(), gamma=1.0, beta=-1e3, running_mean=0.0, running_var=1.0, mismatch=mismatch)
    assert set(roles.channel_columns(replace(made, neighbours=Neighbours("relu")))["role"]) == {role}


def test_extremes_settle_a_share() -> None:
    """Fails if the threshold itself is above, a smallest output at it settles anything, or no output is one."""
    rows = np.array([[5.0, 6.0], [6.0, 7.0], [hair(6.0, 7), 9.0], [np.nan, np.nan]])[None]
    made = site(rows, gamma=1.0, beta=0.0, running_mean=0.0, running_var=1.0, eps=0.0, histograms=False)
    np.testing.assert_array_equal(roles.share_above(made, 6.0), [0.0, np.nan, 1.0, np.nan])


@pytest.mark.parametrize(
    ("kind", "gamma", "constant"),
    [
        ("layer_norm", [0.0009, 0.1, 0.1, 9.0, 0.0011], [0]),
        ("layer_norm", [0.009, 5.0, 5.0, 0.011, 5.0], [0]),
        ("batch_norm", [0.0011, 0.1, 0.1, 9.0, -0.009], [0, 4]),
    ],
)
def test_little_gamma_of_norms_over_features_is_little_beside_the_others(
    kind: str, gamma: list[float], constant: list[int]
) -> None:
    """Fails if a hundredth of the median is not the limit, it grows with a median above 1, or batch norms have it."""
    made = site(some_rows(n_channels=5), kind=kind, gamma=gamma, beta=0.0, neighbours=Neighbours("linear"))
    assert np.flatnonzero(roles.channel_columns(made)["role"] == "constant").tolist() == constant


@pytest.mark.parametrize(
    ("producer", "guessed", "says"), [("a", False, "a"), ("a", True, "a (by name)"), ("", True, "")]
)
def test_what_produces_the_input_is_named(producer: str, guessed: bool, says: str) -> None:
    """Fails if a guess is not called one, or nothing is guessed by name."""
    neighbours = Neighbours("relu", producer=producer, guessed=guessed, feeds_alone=guessed, n_last=7)
    found = roles.layer_columns(site(some_rows(), neighbours=neighbours))
    assert (found["feeder"], found["feeds_alone"], found["n_last"]) == (says, int(guessed), 7)
    found = roles.layer_columns(site(some_rows()))
    assert (found["follows"], found["feeder"], found["feeds_alone"], found["n_last"]) == ("unknown", "", 0, 0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (None, ""),
        ([np.nan, np.nan], ""),
        ([-0.0, np.nan], "0 (0)"),
        ([np.nan, 0.25, np.nan, 1.0], "1 (0.25), 3 (1)"),
        ([0.0, 0.0], ""),  # nothing but constants is a pass of zeros
    ],
)
def test_channels_of_the_input_that_hold_one_value(values: list[float] | None, says: str) -> None:
    """Fails if a channel is counted from 1, or a pass of zeros is a matter of single channels."""
    stem = Stem(np.ones((3, 2)), None, constant=None if values is None else np.array(values))
    found = roles.layer_columns(site(some_rows(), neighbours=Neighbours("relu", stem=stem)))
    assert found["constant_inputs"] == says
    assert roles.layer_columns(site(some_rows()))["constant_inputs"] == ""
