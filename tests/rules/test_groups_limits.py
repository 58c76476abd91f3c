"""Samples in groups: each threshold at and beside it, and whose numbers are told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnprobe.recording.names import SAME, SHIFTED
from bnprobe.rules.groups import _of_one_class, _samples_apart
from rules.edited import edited, edited_rows, evidence, findings, frame

LIMIT = evidence().limits.same_samples


@pytest.mark.parametrize(
    ("labeled", "single", "classes", "one"),
    [
        (4, 4, 2, True),
        (3, 3, 2, False),
        (4, 4, 1, False),
        (10, 9, 2, True),
        (10, 8, 2, False),
        (math.nan, 4, 2, False),
        (20, 18, 3, True),
    ],
)
def test_nine_of_ten_batches_of_one_class_each(
    labeled: float, single: float, classes: int, one: bool
) -> None:
    """Fails if fewer than four batches are a pattern, fewer than nine in ten are enough, or there is one class only."""
    cells = {"n_calls_labeled": labeled, "n_calls_one_class": single, "n_classes": classes}
    assert _of_one_class(pd.Series(cells)) is one


def test_samples_are_as_far_apart_as_their_means_in_deviations_within_a_sample() -> None:
    """Fails if a share of the whole variance is told, eps is taken off, or the mean of channels: of 3, 15 and 99."""
    within = np.array([2.0, 0.5, 4.0])
    ratio, eps = np.array([2.0, 0.5, 1.0]), 0.1
    channels = frame(
        pre_var=within * np.array([4.0, 16.0, 100.0]), running_var=within / ratio**2 - eps, scale_ratio=ratio
    )
    assert _samples_apart(channels, eps) == pytest.approx(math.sqrt(15))
    alike = channels.assign(pre_var=within * np.array([0.5, 0.9, 100.0]))
    assert _samples_apart(alike, eps) == 0.0


ALIKE = {"n_images": 400, "n_effective": 40.0, "n_calls": 20, "batch_effect": 9.0, "batch_effect_least": 6.0}
ALIKE |= {"error_from": "samples", "n_calls_learning": 0, "mode": "eval"}


@pytest.mark.parametrize(
    ("learning", "mode", "told"),
    [(0, "train", True), (1, "train", False), (1, "eval", True), (0, "eval", True), (20, "train", False)],
)
def test_while_weights_move_batches_differ_anyway(learning: int, mode: str, told: bool) -> None:
    """Fails if a single call that learned is none, a call that did not is one, or eval mode moves statistics."""
    found = edited_rows({**ALIKE, "n_calls_learning": learning, "mode": mode})
    assert bool(findings("samples-alike", found)) is told


OWN = {"batches_apart": 0.9, "n_calls_learning": 1, "n_calls": 12}


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({}, True),
        ({"n_calls_learning": 0}, False),
        ({"kind": "layer_norm"}, False),
        ({"kinds_apart": 0.1}, False),
        ({"batches_apart": math.nan}, False),
    ],
)
def test_batches_of_their_own_while_the_model_learns(cells: dict[str, Any], told: bool) -> None:
    """Fails if they are told of a model that does not learn, or beside two kinds that take turns."""
    found = findings(
        "samples-alike", edited_rows({"batches_apart": 0.0, "n_calls_learning": 1}, {**OWN, **cells})
    )
    assert [(one.severity, one.layer) for one in found] == [("warning", "b")] * told
    if told:
        assert "0.9 standard deviations" in found[0].because
        assert "in 12 batches; so it is at 1 batch norm" in found[0].because


def test_the_limit_of_samples_that_are_alike() -> None:
    """Fails if the threshold itself is below it."""
    limit = evidence().limits.samples_alike
    assert findings("samples-alike", edited_rows({**ALIKE, "batch_effect_least": limit}))
    assert not findings("samples-alike", edited_rows({**ALIKE, "batch_effect_least": 0.999 * limit}))


def test_samples_are_told_alike_where_it_shows_most() -> None:
    """Fails if another row's numbers are told, or errors allow for it that do so in some layers only."""
    found = edited_rows(
        {**ALIKE, "batch_effect_least": 5.0, "error_from": "folds"},
        {**ALIKE, "batch_effect_least": 7.0, "batch_effect": 9.5, "n_effective": 42.0, "error_from": "folds"},
        {**ALIKE, "batch_effect_least": 6.0, "error_from": "folds"},
    )
    (one,) = findings("samples-alike", found)
    assert (one.layer, one.severity) == ("b", "info")
    assert "about 42 independent" in one.says
    assert "have 9.5 times" in one.because
    assert "Standard errors allow for that." in one.because
    (mixed,) = findings("samples-alike", edited(found, at=2, error_from="samples"))
    assert mixed.severity == "warning"
    assert "too few" in mixed.because


def test_batches_of_two_kinds_are_told_at_the_first_norm_and_counted() -> None:
    """Fails if the last norm is told, or norms below the threshold are counted."""
    found = edited_rows(
        {"kinds_apart": 0.3}, {"kinds_apart": 0.9, "kinds_spread": 0.15, "n_calls": 12}, {"kinds_apart": 2.0}
    )
    (one,) = findings("batches-of-two-kinds", found)
    assert one.layer == "b"
    assert "of 12 batches" in one.because
    assert "0.9 standard deviations" in one.because
    assert "within 0.15" in one.because
    assert "2 batch norms" in one.because


CLASSES = {"n_calls_labeled": 20, "n_calls_one_class": 19, "n_classes": 7, "normalized_by": "batch"}


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({}, True),
        ({"normalized_by": "both"}, True),
        ({"normalized_by": "running"}, False),
        ({"kind": "instance_norm"}, False),
        ({"n_calls_one_class": 17}, False),
    ],
)
def test_batches_of_one_class_matter_to_batch_norms_that_use_them(cells: dict[str, Any], told: bool) -> None:
    """Fails if running statistics in use, or norms of single samples, are affected by who is in a batch."""
    found = findings("batches-of-one-class", edited_rows({"normalized_by": "running"}, {**CLASSES, **cells}))
    assert [one.layer for one in found] == (["b"] if told else [])
    for one in found:
        assert "19 batches of 20 with labels" in one.because
        assert "of 7 classes" in one.because
        assert "1 batch norm " in one.because


ONE = {
    "normalized_by": "running",
    "n_classes": 1,
    "n_calls_one_class": 4,
    "n_calls": 4,
    "batch_effect_least": 0.0,
}
SHIFTED_, SAME_ = {**ONE, "verdict": SHIFTED[0]}, {**ONE, "verdict": SAME}


@pytest.mark.parametrize(
    ("rows", "severity"),
    [
        ((SHIFTED_, SAME_), "warning"),
        ((SAME_, SHIFTED_), "warning"),
        ((SAME_, SAME_), "info"),
        (({**ONE, "n_calls_one_class": 3}, {**ONE, "n_classes": 2}, {**ONE, "normalized_by": "batch"}), None),
    ],
)
def test_data_of_one_class(rows: tuple[dict[str, Any], ...], severity: str | None) -> None:
    """Fails if every norm must be off for the class to matter, or a condition is not asked."""
    found = findings("samples-alike", edited_rows(*rows))
    assert [(one.layer, one.severity) for one in found] == ([("a", severity)] if severity else [])


@pytest.mark.parametrize(
    ("rows", "layer"),
    [
        (((0.5, 0.5), (0.9, 0.9)), "a"),
        (((0.5, 0.0), (0.0, 0.0)), "a"),
        (((0.5, 1.0), (0.5, 0.5)), "b"),
        (((0.5, 1.0),), ""),
        (((LIMIT, 0.5),), "a"),
        (((math.nextafter(LIMIT, 0), 0.5),), ""),
    ],
)
def test_copies_of_one_sample(rows: tuple[tuple[float, float], ...], layer: str) -> None:
    """Fails if the first norm that shows them is not named, or a batch of copies only is a mistake."""
    cells = (
        {"same_samples": same, "repeated_samples": repeated, "batch_effect_least": 0.0}
        for same, repeated in rows
    )
    found = findings("samples-alike", edited_rows(*cells))
    assert [one.layer for one in found] == ([layer] if layer else [])


def test_kinds_at_the_threshold_are_one() -> None:
    """Fails if the threshold is beyond itself."""
    limit = evidence().limits.kinds_apart
    rows = edited_rows({"kinds_apart": limit}, {"kinds_apart": math.nextafter(limit, 9)})
    assert [one.layer for one in findings("batches-of-two-kinds", rows)] == ["b"]
