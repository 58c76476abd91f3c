"""The mean that a norm subtracts, in what it divides by, and what the first call showed; all from the raw values."""

from __future__ import annotations

import numpy as np
import pytest

from bnprobe.measures import formula
from bnprobe.recording import OutputCheck
from measures.sites import memory_of, site, some_rows

ROWS = some_rows(7) + np.array([3.0, -40.0, 0.5])[:, None]
EPS = 1e-3
SHOWN = {"mismatch_left", "constant_rows", "zero_positions", "zero_rows", "saturated_outputs"}


def test_a_stored_mean_is_counted_in_what_the_norm_divides_by():
    """Fails if the batch's variance is taken where the running one divides, or the other way round, or eps is lost.

    Of inputs that vary more than the running variance says, as those in another unit, that is not what is lost.
    """
    stored = {"running_mean": 0.0, "running_var": [4.0, 9.0, 0.25], "eps": EPS}
    size = np.abs(ROWS.mean((0, 2)))
    by_running = size / np.sqrt(np.maximum(stored["running_var"], ROWS.var((0, 2))) + EPS)
    assert (ROWS.var((0, 2)) > stored["running_var"]).any()
    assert (ROWS.var((0, 2)) < stored["running_var"]).any()
    by_batch = size / np.sqrt(ROWS.var((0, 2)) + EPS)
    for changes, expected in (
        (stored, by_running),
        ({**stored, "n_calls_running": 0}, by_batch),
        ({"eps": EPS}, by_batch),
    ):
        record = site(ROWS, **changes)
        assert formula.channel_columns(record)["mean_in_sds"] == pytest.approx(expected, rel=1e-9)
        assert formula.layer_columns(record)["mean_in_sds_max"] == pytest.approx(expected.max(), rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "pooled", "samples"),
    [("layer_norm", 1, (0, 1)), ("group_norm", (1, 2), 0), ("instance_norm", 2, 0)],
)
def test_statistics_of_samples_are_those_of_a_typical_one(kind: str, pooled: object, samples: object):
    """Fails if samples' own means are counted per channel, or against anything but their own standard deviations."""
    record = site(ROWS, kind=kind, eps=EPS)
    assert np.isnan(formula.channel_columns(record)["mean_in_sds"]).all()
    means, logs = ROWS.mean(pooled), np.log(ROWS.var(pooled) + EPS)
    typical = np.abs(means.mean(samples)) / np.exp(logs.mean(samples) / 2)
    assert formula.layer_columns(record)["mean_in_sds_max"] == pytest.approx(np.max(typical), rel=1e-6)


def test_rms_norm_subtracts_nothing():
    """Fails if a mean that is not subtracted is said to cost digits, with running statistics of its own or without."""
    for changes in ({}, {"pools": "batch", "own_mean": None, "own_log_var": None}):
        record = site(ROWS, kind="rms_norm", **changes)
        assert np.isnan(formula.channel_columns(record)["mean_in_sds"]).all()
        assert np.isnan(formula.layer_columns(record)["mean_in_sds_max"])


def test_stored_statistics_of_samples_are_nobodys_typical_one():
    """Fails if a norm that does not pool the batch is counted by channel because it has no statistics of its own."""
    record = site(ROWS, kind="instance_norm", **memory_of(ROWS))
    assert record.own_mean is None
    assert np.isnan(formula.channel_columns(record)["mean_in_sds"]).all()


@pytest.mark.parametrize(
    ("dtype", "epsilon"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7), ("int8", 2.0**-23)]
)
def test_the_step_of_rounding_is_that_of_the_inputs_type(dtype: str, epsilon: float):
    """Fails if the digits of another type are counted; float32 where the type is none of those known."""
    record = site(ROWS, output_check=OutputCheck(dtype, fits=True))
    found = formula.layer_columns(record)
    assert found["rounding_step"] == found["mean_in_sds_max"] * epsilon
    assert found["input_dtype"] == dtype


def test_what_the_first_call_showed_is_told_as_it_was():
    """Fails if one share stands for another, or what was not checked reads as a 0."""
    unchecked = formula.layer_columns(site(ROWS))
    assert unchecked["rounding_step"] == unchecked["mean_in_sds_max"] * 2.0**-23
    assert all(np.isnan(unchecked[name]) for name in SHOWN | {"formula_fits"})
    check = OutputCheck("float32", False, ("no eps", "no β"), None, 0.1, 0.2, 0.3, 0.4)
    found = formula.layer_columns(site(ROWS, output_check=check))
    assert np.isnan(found["mismatch_left"])
    assert (found["formula_fits"], found["computes_instead"]) == (0.0, "no eps; no β")
    shares = ("constant_rows", "zero_positions", "zero_rows", "saturated_outputs")
    assert [found[name] for name in shares] == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("kind", ["layer_norm", "group_norm"])
def test_how_far_means_lie_of_norms_that_normalize_each_sample(kind: str):
    """Fails if the log of a variance is taken for that of a deviation: |mean of means| over exp(mean log variance / 2)."""
    rows, eps = some_rows(7, 4) + 30.0, 0.5
    axis = 1 if kind == "layer_norm" else (1, 2)
    means, logs = rows.mean(axis), np.log(rows.var(axis) + eps)
    found = formula.layer_columns(site(rows, kind=kind, eps=eps))
    assert found["mean_in_sds_max"] == pytest.approx(abs(means.mean()) / np.exp(logs.mean() / 2), rel=1e-9)
    assert np.isnan(formula.layer_columns(site(rows, kind="rms_norm"))["mean_in_sds_max"])


@pytest.mark.parametrize(
    ("stored", "expected"), [({}, "own"), ({"running_mean": 0.0, "running_var": 16.0}, "running")]
)
def test_how_far_means_lie_of_batch_norms(stored: dict[str, float], expected: str):
    """Fails if another deviation than the one that divides is taken, or eps is left out."""
    rows, eps = some_rows(7) + 30.0, 0.5
    var = np.maximum(rows.var((0, 2)), 0.0 if expected == "own" else 16.0)
    found = formula.layer_columns(site(rows, eps=eps, **stored))
    assert found["mean_in_sds_max"] == pytest.approx(
        (np.abs(rows.mean((0, 2))) / np.sqrt(var + eps)).max(), rel=1e-9
    )
    assert found["rounding_step"] == pytest.approx(found["mean_in_sds_max"] * 2.0**-23, rel=1e-6)


@pytest.mark.parametrize("left", [None, 0.25])
def test_what_a_check_of_the_output_says(left: float | None):
    """Fails if what was not tried is told as nothing left, or a share stands for another."""
    check = OutputCheck(
        dtype="bfloat16",
        fits=False,
        deviations=("no bias", "relu"),
        remaining=left,
        constant_rows=0.1,
        zero_positions=0.2,
        zero_rows=0.3,
        saturated=0.4,
    )
    found = formula.layer_columns(site(some_rows(), output_check=check))
    assert found["computes_instead"] == "no bias; relu"
    assert (found["formula_fits"], found["input_dtype"]) == (0.0, "bfloat16")
    shares = ("constant_rows", "zero_positions", "zero_rows", "saturated_outputs")
    assert [found[name] for name in shares] == [0.1, 0.2, 0.3, 0.4]
    assert found["mismatch_left"] == pytest.approx(np.nan if left is None else left, nan_ok=True)
