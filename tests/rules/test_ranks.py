"""Ranks that differ: what is a warning, what a note, and which norm and ranks are named."""

from __future__ import annotations

import math

import pytest

from bnprobe.rules.rule import Evidence
from rules.edited import edited, evidence, findings, healthy
from rules.test_thresholds import from_

FAR = {"ranks_apart": 0.7, "ranks_apart_chance": 0.1, "ranks_apart_of": "rank 2 and rank 3"}


def three(**row: object) -> Evidence:
    """Three norms, the second and the third with these cells."""
    base = evidence(healthy("a"), healthy("b"), healthy("c"))
    return edited(edited(base, at=1, **row), at=2, **row)


@pytest.mark.parametrize(("value", "severity"), list(zip(from_(0.2), ("info", "warning"), strict=True)))
def test_running_statistics_that_drifted_far_are_a_warning(value, severity):
    """Fails if what one update makes is a warning, or ranks with statistics of their own are a note."""
    (found,) = findings("ranks-drifted", three(ranks_stored_apart=value))
    assert found.severity == severity


def test_drift_is_one_finding_at_the_farthest_norm():
    """Fails if each of a hundred norms is a finding, or another than the farthest is named."""
    cells = {"ranks_stored_apart": 0.5, "ranks_stored_apart_of": "rank 0 and rank 1"}
    farther = {"ranks_stored_apart": 0.75, "ranks_stored_apart_of": "ranks 0 to 1 and rank 2"}
    (found,) = findings("ranks-drifted", edited(three(**cells), at=2, **farther))
    assert found.layer == "c"
    assert found.because.startswith(
        "ranks 0 to 1 and rank 2 are 0.75 running σ apart at c, and those of 2 norms"
    )
    (found,) = findings("ranks-drifted", edited(three(**cells), at=2, **{**farther, "call": 1}))
    assert found.layer == "b"


def test_other_data_are_one_finding_where_they_come_in():
    """Fails if the norm is named where they are farthest, and not the first one that meets them."""
    (found,) = findings("ranks-unlike", edited(three(**FAR), at=2, ranks_apart=2.0))
    assert (found.severity, found.layer) == ("info", "b")
    assert found.because.startswith(
        "The inputs of rank 2 and rank 3 are 0.70 σ apart here, the first of 2 norms"
    )
    assert "Sums over all ranks are right" in found.says


def test_other_data_are_a_warning_while_the_model_learns():
    """Fails if it is said to be harmless where batch norms learn from a part each."""
    (found,) = findings("ranks-unlike", three(**FAR, n_calls_learning=1))
    assert found.severity == "warning"
    assert "learns the statistics of its own part" in found.says


def test_without_a_spread_of_samples_nothing_is_said():
    """Fails if one sample on each rank is enough to call data different."""
    assert findings("ranks-unlike", three(**{**FAR, "ranks_apart_chance": math.nan})) == []
