"""Training that leaves running statistics behind: each condition on its own, and whose numbers are told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rules.edited import edited, edited_rows, evidence, findings, healthy

EVAL = {"n_learned_in_eval": 3, "n_backward": 4, "n_calls": 5, "memory_moved": 0.0}


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({}, True),
        ({"n_learned_in_eval": 1}, True),
        ({"n_learned_in_eval": 0}, False),
        ({"n_backward": 1}, True),
        ({"n_backward": 0}, False),
        ({"n_calls": 1}, True),
        ({"n_calls": 0}, False),
        ({"memory_moved": math.nan}, False),
        ({"kind": "layer_norm"}, False),
    ],
)
def test_learning_in_eval_mode(cells: dict[str, Any], told: bool) -> None:
    """Fails if one change, one backward pass or one call is none, or norms without running statistics are blamed."""
    assert bool(findings("learning-in-eval", edited_rows({**EVAL, **cells}))) is told


def test_learning_in_eval_mode_is_told_where_it_was_most_often() -> None:
    """Fails if the first or the rarest is told, or norms that did not learn are counted."""
    found = edited_rows(
        {**EVAL, "n_learned_in_eval": 2},
        {**EVAL, "n_learned_in_eval": 4, "n_calls": 7},
        EVAL,
        {**EVAL, "n_learned_in_eval": 0},
    )
    (one,) = findings("learning-in-eval", found)
    assert one.layer == "b"
    assert "after 4 of 7 calls" in one.because
    assert "3 batch norms" in one.because


FROZEN = {"mode": "train", "normalized_by": "batch", "n_calls": 5, "n_calls_learning": 5, "n_backward": 1}
FROZEN |= {"memory_moved": 0.0, "n_updates": 0, "momentum": 0.1}


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({}, True),
        ({"n_updates": math.nan}, True),
        ({"momentum": math.nan}, True),
        ({"momentum": 1.0}, True),
        ({"n_calls": 1, "n_calls_learning": 1}, True),
        ({"mode": "eval"}, False),
        ({"normalized_by": "both"}, False),
        ({"n_calls_learning": 4}, False),
        ({"n_backward": 0}, False),
        ({"memory_moved": 1e-9}, False),
        ({"n_updates": 1}, False),
        ({"momentum": 0.0}, False),
        ({"kind": "instance_norm"}, False),
    ],
)
def test_batch_statistics_that_never_update_the_running_ones(cells: dict[str, Any], told: bool) -> None:
    """Fails if one of the conditions is not asked, or a single update, pass or call is none."""
    found = findings("statistics-not-updated", edited_rows({**FROZEN, "mode": "eval"}, {**FROZEN, **cells}))
    assert [one.layer for one in found] == (["b"] if told else [])


def test_norms_that_are_not_updated_are_counted() -> None:
    """Fails if the last one is named, or those that follow are counted as well."""
    (one,) = findings("statistics-not-updated", edited_rows({**FROZEN, "memory_moved": 0.1}, FROZEN, FROZEN))
    assert one.layer == "b"
    assert "in 2 batch norms" in one.because


def test_a_healthy_norm_is_not_told() -> None:
    """Fails if the tables of these tests would be told as they are."""
    for rule in ("learning-in-eval", "statistics-not-updated"):
        assert findings(rule, edited(evidence(healthy()))) == []
