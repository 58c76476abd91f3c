"""How norms are used: each condition of each rule on its own, at and beside its limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.rules.edits import Freeze
from rules.edited import edited_rows, evidence, findings

LIMITS = evidence().limits
BATCH = {"normalized_by": "batch", "mode": "train", "n_calls_learning": 1, "n_calls": 1}
FEW = {**BATCH, "fewest_values": LIMITS.few_values - 1, "fewest_call": 0, "fewest_images": 2}


def told(rule: str, *rows: dict[str, Any]) -> list[str]:
    return [found.layer for found in findings(rule, edited_rows(*rows))]


@pytest.mark.parametrize(
    ("cells", "few"),
    [
        ({}, True),
        ({"normalized_by": "both"}, True),
        ({"fewest_values": LIMITS.few_values}, False),
        ({"fewest_values": math.nan}, False),
        ({"normalized_by": "sample"}, False),
        ({"normalized_by": "sample", "fewest_values": LIMITS.no_values}, True),
        ({"normalized_by": "sample", "fewest_values": LIMITS.no_values + 1}, False),
        ({"normalized_by": "sample", "fewest_values": 1}, True),
        ({"normalized_by": "running"}, False),
    ],
)
def test_few_values(cells: dict[str, Any], few: bool) -> None:
    """Fails if the limit of norms of single samples, which it includes, is that of batches, which it does not."""
    assert told("few-values", {**FEW, **cells}) == (["a"] if few else [])


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            {"fewest_values": 2, "fewest_images": 1},
            "2 values per channel in call 1 of 1, with 1 sample, so the variance has a "
            "relative error of 141% ",
        ),
        (
            {"fewest_values": 9, "n_calls": 4, "fewest_call": 2},
            "9 values per channel in call 3 of 4, with 2 samples, so the "
            "variance has a relative error of 50% ",
        ),
        ({"fewest_values": 1}, "1 value per channel in call 1 of 1, with 2 samples (threshold "),
        (
            {"fewest_values": 2, "normalized_by": "sample"},
            "2 values per mean and variance in call 1 of 1, with 2 samples (threshold ",
        ),
    ],
)
def test_what_is_said_of_few_values(cells: dict[str, Any], words: str) -> None:
    """Fails if calls are counted from 0, √(2/(n − 1)) is another error, or one value has one."""
    (found,) = findings("few-values", edited_rows({**FEW, **cells}))
    assert found.because.startswith(words)


@pytest.mark.parametrize(
    ("cells", "drops"),
    [
        ({"n_calls": 4, "n_values": 4 * 3 * 13}, True),
        ({"n_calls": 4, "n_values": 4 * 3 * 12}, False),
        ({"n_calls": 1, "n_values": 3 * 100}, False),
        ({"n_calls": 2, "n_values": 2 * 3 * 13}, True),
    ],
)
def test_a_small_last_batch_is_to_be_dropped(cells: dict[str, Any], drops: bool) -> None:
    """Fails if other calls had not more than twice as many values of a channel, or there were none."""
    (found,) = findings("few-values", edited_rows({**FEW, "n_channels": 3, "fewest_values": 6, **cells}))
    assert ("drop_last=True" in found.do) is drops
    assert (found.remedy is None) is drops


ALONE = {
    **BATCH,
    "n_images": 30,
    "n_calls": 30,
    "n_calls_learning": 30,
    "fewest_values": 49.0,
    "share_within_median": 0.5,
}


@pytest.mark.parametrize(
    ("cells", "single"),
    [
        ({}, True),
        ({"n_images": 31}, False),
        ({"n_calls_learning": 29}, False),
        ({"normalized_by": "both"}, False),
        ({"kind": "instance_norm"}, False),
        ({"fewest_values": math.nan}, True),
        ({"share_within_median": 1.0}, False),
        ({"share_within_median": 1 / (1 + LIMITS.samples_apart**2) - 1e-6}, True),
        ({"share_within_median": 1 / (1 + LIMITS.samples_apart**2) + 1e-6}, False),
        ({"share_within_median": math.nan}, False),
    ],
)
def test_batches_of_a_single_sample(cells: dict[str, Any], single: bool) -> None:
    """Fails if one of the conditions is not asked, or samples that lie as far apart as the limit are told."""
    assert told("few-values", {**ALONE, **cells}) == (["a"] if single else [])


def test_all_norms_of_single_samples_are_one_finding() -> None:
    """Fails if the distance is that of another norm, or norms are counted that are not meant."""
    rows = {**ALONE, "normalized_by": "running"}, {**ALONE, "share_within_median": 0.2}, ALONE
    (found,) = findings("few-values", edited_rows(*rows))
    assert found.layer == "b"
    assert "the means of samples are 2 times as far apart" in found.because
    assert "at 2 batch norms" in found.because
    assert found.remedy is not None
    assert found.remedy.edits == (Freeze(("b", "c"), eval_mode=True),)


EVALUATED = {**BATCH, "n_calls_learning": 0, "memory_moved": 0.0, "fewest_values": 1000.0}


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ({}, True),
        ({"mode": "mixed"}, True),
        ({"normalized_by": "both"}, True),
        ({"mode": "eval", "affine_by": "none"}, False),
        ({"normalized_by": "running"}, False),
        ({"n_calls_learning": 1}, False),
        ({"n_calls": 0}, False),
        ({"kind": "instance_norm"}, False),
        ({"mode": "eval", "affine_by": "running"}, True),
        ({"mode": "eval", "affine_by": "running", "n_calls_learning": 1}, False),
        ({"mode": "eval", "affine_by": "running", "kind": "layer_norm"}, False),
        ({"mode": "eval", "affine_by": "running", "normalized_by": "both"}, False),
    ],
)
def test_evaluation_by_batch_statistics(cells: dict[str, Any], wrong: bool) -> None:
    """Fails if a norm that learns, that was not called, or that is no batch norm is told, or a mixed mode is not."""
    running = {**EVALUATED, "mode": "eval", "normalized_by": "running"}
    assert told("train-mode-in-evaluation", running, {**EVALUATED, **cells}) == (["b"] if wrong else [])


@pytest.mark.parametrize(("moved", "says"), [(0.0, False), (1e-3, True), (math.nan, False)])
def test_running_statistics_that_changed_in_evaluation(moved: float, says: bool) -> None:
    """Fails if any distance is none, none is one, or the number of norms is another."""
    rows = (
        {**EVALUATED, "mode": "eval", "normalized_by": "running"},
        EVALUATED,
        {**EVALUATED, "memory_moved": moved},
    )
    (found,) = findings("train-mode-in-evaluation", edited_rows(*rows))
    assert ("and the running statistics changed" in found.says) is says
    assert ("running means moved by up to 0.001 running σ" in found.because) is says
    assert "2 of 3 batch norms" in found.because


MOVING = {"learns": "none", "n_calls_learning": 3, "n_calls": 3, "normalized_by": "batch", "mode": "train"}
MOVING |= {"memory_moved": 0.5, "n_updates": 3, "fewest_values": 1000.0, "call": 0}
OTHER = {**MOVING, "learns": "both"}


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ({}, True),
        ({"normalized_by": "both"}, True),
        ({"n_calls_learning": 1}, True),
        ({"memory_moved": 1e-9}, True),
        ({"learns": "γ"}, False),
        ({"n_calls_learning": 0}, False),
        ({"normalized_by": "running"}, False),
        ({"memory_moved": 0.0}, False),
        ({"memory_moved": math.nan}, False),
    ],
)
def test_a_frozen_norm_whose_statistics_move(cells: dict[str, Any], wrong: bool) -> None:
    """Fails if a step of any size, or a single call, is none, or a norm that learns is frozen."""
    found = findings("frozen-but-moving", edited_rows(OTHER, {**MOVING, **cells}))
    assert [one.layer for one in found] == (["b"] if wrong else [])
    for one in found:
        assert " in 3 updates (threshold: not at all)" in one.because


def test_updates_that_nobody_counted_are_not_told() -> None:
    """Fails if no update is told as a number of them."""
    (found,) = findings("frozen-but-moving", edited_rows(OTHER, {**MOVING, "n_updates": 0}))
    assert "0.5 running σ (threshold: not at all)" in found.because


LEARNING = {
    "learns": "both",
    "n_calls": 3,
    "n_calls_learning": 3,
    "n_calls_model_training": 3,
    "mode": "eval",
}
LEARNING |= {"normalized_by": "running", "n_backward": 2, "call": 0}


@pytest.mark.parametrize(
    ("cells", "wrong"),
    [
        ({}, True),
        ({"learns": "γ"}, True),
        ({"learns": "β"}, True),
        ({"n_calls_learning": 1}, True),
        ({"learns": "none"}, False),
        ({"n_calls_learning": 0}, False),
        ({"n_calls_model_training": 2}, False),
        ({"mode": "train"}, False),
        ({"normalized_by": "batch"}, False),
    ],
)
def test_a_norm_that_learns_on_fixed_statistics(cells: dict[str, Any], wrong: bool) -> None:
    """Fails if one of the two vectors is none, or a call in which the model was evaluated counts."""
    found = findings("learning-but-frozen", edited_rows({**LEARNING, **cells}))
    assert [one.layer for one in found] == (["a"] if wrong else [])
    for one in found:
        learns = cells.get("learns", "both")
        assert (
            "γ and β learn: they adapt" if learns == "both" else f"{learns} learns: it adapts"
        ) in one.says


SYNC = {"class_name": "SyncBatchNorm", "n_ranks": 1, "normalized_by": "batch", "n_calls_learning": 1}


@pytest.mark.parametrize(
    ("cells", "alone"),
    [
        ({}, True),
        ({"normalized_by": "both"}, True),
        ({"normalized_by": "running"}, False),
        ({"n_ranks": 2}, False),
        ({"n_calls_learning": 0}, False),
        ({"class_name": "BatchNorm2d"}, False),
    ],
)
def test_a_sync_batch_norm_alone(cells: dict[str, Any], alone: bool) -> None:
    """Fails if one call that learns is none, two processes are one, or a plain norm is told."""
    assert told("sync-alone", {**FEW, "fewest_values": 1000.0, **SYNC, **cells}) == (["a"] if alone else [])
