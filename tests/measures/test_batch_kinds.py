"""Two kinds of batches that take turns, told from weights that move and from batches that differ by chance."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from rules.edited import edited, evidence, findings

from bnprobe.measures.batch_kinds import _noise, _split, batches_apart, kinds
from bnprobe.recording import LayerRecord
from bnprobe.stats import Folds
from measures.drawn import record_of
from measures.sites import site

N_BATCHES, BATCH, C = 12, 32, 5
APART = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
"""Distance between the kinds in each channel, in standard deviations within a kind."""

TURNS = np.arange(N_BATCHES) % 2
WITHIN = np.array([1.0, 2.0, 0.1, 30.0, 1.0])
"""Standard deviations within a kind."""


def recorded(moved: np.ndarray) -> LayerRecord:
    """A norm in train mode, whose batches are so many standard deviations away, (N_BATCHES,) or (N_BATCHES, C)."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N_BATCHES * BATCH, C, 1))
    rows += np.repeat(np.broadcast_to(moved.reshape(N_BATCHES, -1), (N_BATCHES, C)), BATCH, axis=0)[
        :, :, None
    ]
    record = record_of(rows * WITHIN[:, None], np.zeros(C), np.ones(C), batch=BATCH)
    return replace(record, n_calls_running=0)


def test_kinds_that_take_turns_are_as_far_apart_as_they_are():
    """Fails if the distance is not that between the kinds, in the deviation within a kind, whatever a channel's scale."""
    found = kinds(recorded(TURNS[:, None] * APART))
    assert found.apart == pytest.approx(np.sqrt(np.mean(APART**2)), rel=0.1)
    # of means of 32 values
    assert found.spread == pytest.approx(1 / np.sqrt(BATCH), rel=0.35)


@pytest.mark.parametrize(
    "moved",
    [
        np.zeros(N_BATCHES),
        np.arange(N_BATCHES) * 0.5,
        np.sort(TURNS) * 3.0,
        np.random.default_rng(4).normal(size=N_BATCHES),
        np.random.default_rng(5).normal(size=(N_BATCHES, C)),
        TURNS * 0.1,
    ],
    ids=["alike", "drift", "one step", "light", "each its own", "hardly apart"],
)
def test_batches_that_differ_otherwise_are_not_of_two_kinds(moved: np.ndarray):
    """Fails if weights that move, a change of the data in the middle, or batches that vary are called two kinds."""
    assert np.isnan(kinds(recorded(moved)).apart)


def test_where_batches_do_not_normalize_themselves_their_kinds_do_not_matter():
    """Fails if running statistics in use, norms of single samples, or a handful of batches are judged."""
    record = recorded(TURNS[:, None] * APART)
    assert kinds(record).apart > 1
    assert np.isnan(kinds(replace(record, n_calls_running=1)).apart)
    assert np.isnan(kinds(replace(record, pre_folds=None)).apart)
    assert np.isnan(kinds(site(np.ones((3, 2, 4)), kind="layer_norm")).apart)


def test_two_kinds_of_batches_are_one_note():
    """Fails if the threshold moves, or what may be meant is a warning."""
    assert findings("batches-of-two-kinds", edited(evidence(), kinds_apart=0.5, kinds_spread=0.1)) == []
    (found,) = findings("batches-of-two-kinds", edited(evidence(), kinds_apart=0.51, kinds_spread=0.1))
    assert found.severity == "info"
    assert "0.51 standard deviations" in found.because


def test_two_groups_along_the_direction_in_which_folds_differ_most():
    """Fails if the boundary is elsewhere than where least is left, or deviations within have another divisor: K - 2."""
    along = np.array([0.0, 0.1, 5.0, 5.3, 0.2, 4.9, 5.1, 0.1])
    one, gap = _split(along[:, None] * np.array([[3.0, -4.0]]))
    high = along > 2
    assert one.tolist() in (high.tolist(), (~high).tolist())
    left = sum(((along[group] - along[group].mean()) ** 2).sum() for group in (high, ~high))
    expected = (along[high].mean() - along[~high].mean()) / np.sqrt(left / 6)
    assert gap == pytest.approx(expected, rel=1e-9)


def test_the_noise_of_a_batch_is_that_of_independent_samples():
    """Fails if it is of one sample, or has other degrees of freedom: the variance within batches over a fold's samples."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(24, 3, 1))
    record = record_of(rows, np.zeros(3), np.ones(3), batch=3)
    parts = rows[:, :, 0].reshape(8, 3, 3)
    within = ((parts - parts.mean(1, keepdims=True)) ** 2).sum((0, 1)) / (24 - 8)
    np.testing.assert_allclose(_noise(record.pre_folds), within / 3, rtol=1e-9)


@pytest.mark.parametrize("order", [[0, 1] * 6, [0, 0, 1, 1] * 3, [0, 0, 0, 1, 1, 1] * 2])
def test_kinds_take_turns_in_any_rhythm_that_changes_often(order: list[int]):
    """Fails if fewer changes than a third of the batches are turns, or more are none."""
    changes = int(np.abs(np.diff(order)).sum())
    found = kinds(recorded(np.array(order)[:, None] * APART))
    assert np.isnan(found.apart) == (changes < N_BATCHES / 3)


@pytest.mark.parametrize("n", [1, 2])
def test_a_kind_of_a_single_batch_is_none(n: int):
    """Fails if one odd batch is a kind, or two that take turns with the others are none."""
    order = np.zeros(N_BATCHES)
    order[[3, 8][:n]] = 1.0
    assert np.isnan(kinds(recorded(order[:, None] * APART)).apart) == (n == 1)


@pytest.mark.parametrize(("apart", "found"), [(2.2, False), (2.45, True), (-2.2, False), (-2.45, True)])
def test_kinds_lie_farther_apart_than_means_do_by_chance(apart: float, found: bool):
    """Fails if both kinds' noise does not count: two groups of six batches, exactly alike within, whose means have a noise
    of 1; 4 √(1/6 + 1/6) = 2.31."""
    n = np.full((N_BATCHES, 2), float(BATCH))
    means = TURNS[:, None] * np.array([[apart, apart]])
    within = np.full(2, (N_BATCHES * BATCH - N_BATCHES) * float(BATCH))
    folds = Folds(np.zeros(2), n, n * means, n * (means**2 + BATCH), within, N_BATCHES)
    rows = np.sqrt(BATCH) * np.random.default_rng(2).normal(size=(N_BATCHES * BATCH, 2, 1))
    record = replace(
        record_of(rows, np.zeros(2), np.ones(2), batch=BATCH), n_calls_running=0, pre_folds=folds
    )
    assert np.isfinite(kinds(record).apart) == found


@pytest.mark.parametrize(("n_batches", "found"), [(7, False), (8, True)])
def test_eight_batches_are_enough(n_batches: int, found: bool):
    """Fails if fewer are, or eight are not."""
    rng = np.random.default_rng(0)
    rows = (
        rng.normal(size=(n_batches * BATCH, C, 1))
        + np.repeat(np.arange(n_batches) % 2, BATCH)[:, None, None] * 3
    )
    record = replace(record_of(rows, np.zeros(C), np.ones(C), batch=BATCH), n_calls_running=0)
    assert np.isfinite(kinds(record).apart) == found


@pytest.mark.parametrize(("of_first", "found"), [(1.0, False), (2.0, True)])
def test_a_fold_of_one_sample_has_no_mean_to_compare(of_first: float, found: bool):
    """Fails if a single sample is a batch, or two are not."""
    record = recorded(TURNS[:, None] * APART)
    n = record.pre_folds.n.copy()
    n[0] = of_first
    smaller = replace(record.pre_folds, n=n, a=record.pre_folds.a / record.pre_folds.n * n)
    b = np.maximum(record.pre_folds.b, smaller.a**2 / n)
    assert np.isfinite(kinds(replace(record, pre_folds=replace(smaller, b=b))).apart) == found


def test_a_channel_that_does_not_vary_takes_no_part():
    """Fails if a constant channel is divided by, or makes the others' distance smaller."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(N_BATCHES * BATCH, 3, 1)) + np.repeat(TURNS, BATCH)[:, None, None] * 2.0
    rows[:, 1] = 0.0
    record = replace(record_of(rows, np.zeros(3), np.ones(3), batch=BATCH), n_calls_running=0)
    assert kinds(record).apart == pytest.approx(2.0, rel=0.1)


def by_hand(record: LayerRecord, moved: np.ndarray) -> float:
    """The distance of neighboring batches by loops over the rows of `recorded`, whose batches are folds of their own."""
    rng = np.random.default_rng(0)
    rows = (
        rng.normal(size=(N_BATCHES, BATCH, C))
        + np.broadcast_to(moved.reshape(N_BATCHES, -1), (N_BATCHES, C))[:, None]
    )
    total = 0.0
    for c in range(C):
        batches = [rows[k, :, c] * WITHIN[c] for k in range(N_BATCHES)]
        means = [batch.mean() for batch in batches]
        steps = sum((b - a) ** 2 for a, b in pairwise(means)) / 2 / (N_BATCHES - 1)
        squares = sum(((batch - batch.mean()) ** 2).sum() for batch in batches)
        by_chance = squares / (N_BATCHES * BATCH - N_BATCHES) / BATCH
        total += (steps - by_chance) / (squares / N_BATCHES / BATCH)
    return float(np.sqrt(max(total / C, 0.0)))


@pytest.mark.parametrize(
    "moved",
    [
        np.random.default_rng(4).normal(size=N_BATCHES),
        np.random.default_rng(5).normal(size=(N_BATCHES, C)),
        np.arange(N_BATCHES) * 0.5,
        TURNS * 3.0,
    ],
    ids=["light", "each its own", "drift", "two kinds"],
)
def test_how_far_a_batch_lies_from_the_one_before(moved: np.ndarray):
    """Fails if it is not the deviation between neighbors beyond that of chance, in the deviation within a batch."""
    record = recorded(moved)
    assert batches_apart(record) == pytest.approx(by_hand(record, moved), rel=1e-6)


def test_weights_that_move_are_no_batches_of_their_own():
    """Fails if means that drift far, in small steps, are as far apart as the last is from the first."""
    assert batches_apart(recorded(np.arange(N_BATCHES) * 0.3)) < 0.25
    assert batches_apart(recorded(np.random.default_rng(4).normal(size=N_BATCHES))) > 0.5


def test_batches_of_independent_samples_are_not_apart():
    """Fails if what chance does to means counts."""
    assert batches_apart(recorded(np.zeros(N_BATCHES))) == 0.0


def test_folds_of_several_batches_are_worth_as_many():
    """Fails if means of more than 20 batches, of which several share a fold, lie nearer for that."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(60, BATCH, C)) + 1.5 * rng.normal(size=(60, 1, 1))
    record = record_of(rows.reshape(60 * BATCH, C, 1), np.zeros(C), np.ones(C), batch=BATCH)
    assert batches_apart(replace(record, n_calls_running=0)) == pytest.approx(1.5, rel=0.35)


def test_where_batches_do_not_normalize_themselves_their_distance_does_not_matter():
    """Fails if running statistics in use, or a record without folds, is judged."""
    record = recorded(np.random.default_rng(4).normal(size=N_BATCHES))
    assert np.isnan(batches_apart(replace(record, n_calls_running=1)))
    assert np.isnan(batches_apart(replace(record, pre_folds=None)))
