"""Do the outputs have mean beta and std |gamma|, and if not, which word says why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bnprobe.measures import output_moments
from bnprobe.recording import LayerRecord
from measures import drawn
from measures.sites import alone, running_stats_of, site, some_rows

ROWS = some_rows(40)
LEARNED = {"gamma": [2, -0.5, 3], "beta": [0.1, 0.2, -1]}
BATCH = {"n_calls_running": 0, "n_calls_training": 1}


def summary(record: LayerRecord) -> dict[str, float | str]:
    return output_moments.layer_columns(record, alone(record))


def why(record: object) -> str:
    return str(summary(record)["why_not"])


def test_hand_worked_numbers():
    """Fails if gamma's sign or square is used, or the error is in standard deviations of the output.

    Values 0 and 4, with running mean 1 and variance 4: outputs beta + gamma (-1/2 and 3/2).
    """
    rows = np.array([[[0.0, 4.0]], [[4.0, 0.0]]])
    found = output_moments.channel_columns(
        site(rows, running_mean=1, running_var=4, eps=0.0, gamma=-3, beta=5)
    )
    assert found["beta_error"][0] == pytest.approx(-0.5)
    assert found["gamma_ratio"][0] == pytest.approx(1.0)


def test_with_running_statistics_they_are_the_shift_and_the_scale():
    """Fails if the derived output is not beta + gamma (x - mean) / std."""
    from bnprobe.measures import shift

    record = site(ROWS, running_mean=[0, 3, 2], running_var=[4, 1, 0.1], **LEARNED)
    found, seen = output_moments.channel_columns(record), shift.channel_columns(record)
    np.testing.assert_allclose(found["beta_error"], np.sign(LEARNED["gamma"]) * seen["shift"], rtol=1e-9)
    np.testing.assert_allclose(found["gamma_ratio"], seen["scale_ratio"], rtol=1e-9)


def test_a_norm_without_gamma_and_beta_has_the_targets_one_and_zero():
    """Fails if a missing vector makes the target unknown."""
    rows = ROWS
    found = summary(site(rows, eps=0.0, **running_stats_of(rows)))
    assert found["beta_error_median"] == pytest.approx(0, abs=1e-9)
    assert found["gamma_ratio_median"] == pytest.approx(1)
    assert found["why_not"] == "holds"


def test_a_channel_with_gamma_zero_has_no_target():
    """Fails if it divides by zero, or drags the layer with it."""
    record = site(ROWS, gamma=[0, 1, 1], beta=3, eps=0.0, **running_stats_of(ROWS))
    found = output_moments.channel_columns(record)
    assert np.isnan([found["beta_error"][0], found["gamma_ratio"][0]]).all()
    assert why(record) == "holds"
    assert why(site(ROWS, gamma=0, beta=1, **running_stats_of(ROWS))) == "unknown"


def test_a_channel_with_gamma_zero_has_no_target_where_its_outputs_vary():
    """Fails if what a layer adds to its norm is divided by a γ of 0: distance and ratio would be infinite."""
    plain = site(ROWS, gamma=[0, 1, 1], beta=3, **running_stats_of(ROWS))
    found = output_moments.channel_columns(replace(plain, output="read", post=plain.pre))
    for column, expected in (
        ("beta_error", [np.nan, *(ROWS.mean((0, 2)) - 3)[1:]]),
        ("gamma_ratio", [np.nan, *ROWS.std((0, 2))[1:]]),
    ):
        np.testing.assert_allclose(found[column], expected, rtol=1e-9)


MOVED = {"running_mean": running_stats_of(ROWS)["running_mean"] - 9, "running_var": 1e-2}


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        ("holds", site(ROWS, **LEARNED, **BATCH)),
        ("holds", site(ROWS, **LEARNED, **running_stats_of(ROWS))),
        ("eps", site(ROWS, eps=1e4, **LEARNED, **running_stats_of(ROWS))),
        ("eps", site(ROWS, eps=1e4, **LEARNED, **BATCH)),
        # a little more variance than in training is not why these outputs are far too small
        ("eps", site(ROWS * 1.25, eps=1e4, **LEARNED, **running_stats_of(ROWS * 1.001))),
        ("shift", site(ROWS, **LEARNED, **MOVED)),
        ("never updated", site(ROWS * 7 + 9, **LEARNED, running_mean=0, running_var=1)),
        ("own statistics", site(ROWS, kind="layer_norm", **LEARNED)),
        ("other formula", site(ROWS, output="read", mismatch=0.4, **LEARNED, **MOVED)),
        ("batch statistics", site(ROWS, n_calls=2, n_calls_running=1, **LEARNED, **MOVED)),
        ("unknown", site(ROWS * np.nan, **LEARNED, **MOVED)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reason(expected, record):
    """Fails if the reasons are asked in another order, or one hides another."""
    assert why(record) == expected


def test_few_images_lie_elsewhere_by_chance():
    """Fails if eight images accuse the running statistics: ten draws from the same source, most of them off by chance."""
    statistics = drawn.statistics(np.random.default_rng(1))
    found = []
    for seed in range(10):
        record = drawn.record_of(drawn.images(np.random.default_rng(seed), 8), **statistics)
        sigma = np.sqrt(statistics["running_var"] + record.eps)
        post = record.pre.affine(1 / sigma, np.zeros(24), statistics["running_mean"])
        found.append(why(type(record)(**{**vars(record), "post": post})))
    assert set(found) <= {"holds", "small sample"}
    assert found.count("small sample") >= 5


def test_instance_norm_is_on_target_on_average():
    """Fails if own statistics are blamed where they do no harm."""
    assert why(site(ROWS, kind="instance_norm", **LEARNED)) == "holds"


def test_every_reason_is_a_known_one():
    """Fails if the glossary lists other words than the rule gives."""
    listed = next(column for column in output_moments.COLUMNS if column.name == "why_not").formula
    for reason in output_moments.REASONS[2:]:
        assert reason in listed
    assert math.isnan(summary(site(ROWS * np.nan))["beta_error_median"])
