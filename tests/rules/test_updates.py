"""Updates of running statistics: what fires each rule, and its nearest healthy neighbour."""

from __future__ import annotations

import numpy as np
import pytest
from measures.sites import site

from bnprobe.recording import LayerRecord
from rules.firing import fired
from rules.trained import LEARNED, STATISTICS, TRAIN, learning, norm


@pytest.mark.parametrize(("updates", "fires"), [(4, 0), (5, 0), (6, 1), (8, 1)])
def test_more_updates_than_calls(updates, fires):
    """Fails if one failed pass counts as checkpointing, or calls of one layer are not added up."""
    changes = {**TRAIN, "n_calls": 2, "n_calls_training": 2}
    calls = [norm(changes={**changes, "call": call}, **learning(n_updates=updates)) for call in (0, 1)]
    found = fired("updated-twice", *calls)
    assert len(found) == fires
    if updates == 8:
        assert "2 per call" in found["because"][0]
        assert "momentum 0.1 acts as 0.19" in found["because"][0]


@pytest.mark.parametrize(
    ("momentum", "fires"), [(0.0, 1), (0.1, 0), (0.49, 0), (0.5, 1), (1.0, 1), (None, 1)]
)
def test_momentum_while_learning(momentum, fires):
    """Fails if a limit moves, or None is taken for 0."""
    found = fired("momentum-odd", norm(changes={**TRAIN, "momentum": momentum}, **learning()))
    assert len(found) == fires


@pytest.mark.parametrize(
    ("momentum", "meant"), [(0.99, "0.01"), (0.9, "0.1"), (0.999, "0.001"), (0.6, "0.1"), (1.0, "0.1")]
)
def test_a_momentum_of_the_other_convention_is_translated(momentum, meant):
    """Fails if the advice for a momentum taken over from Keras is another than 1 minus it."""
    found = fired("momentum-odd", norm(changes={**TRAIN, "momentum": momentum}, **learning()))
    assert f".momentum = {meant}`" in found["do"][0]
    assert ("so their" in found["because"][0]) == (momentum in (0.9, 0.99, 0.999))


@pytest.mark.parametrize(("momentum", "fires"), [(0.0, 0), (None, 0), (0.9, 1)])
def test_momentum_in_use(momentum, fires):
    """Fails if a frozen momentum, or a plain average of statistics that fit, is blamed in eval mode."""
    assert len(fired("momentum-odd", norm(changes={"momentum": momentum}))) == fires


def test_a_plain_average_that_no_longer_fits():
    """Fails if None is never blamed in eval mode."""
    off = STATISTICS["running_mean"] + 2 * np.sqrt(STATISTICS["running_var"])
    found = fired("momentum-odd", norm(changes={"momentum": None, "running_mean": off}))
    assert len(found) == 1
    assert "mean" in found["because"][0]


def test_norms_without_a_counter_have_no_momentum():
    """Fails if a frozen batch norm of another library, which has no momentum, is told to set one."""
    assert fired("momentum-odd", norm(changes={**TRAIN, "momentum": None, "n_batches_tracked": None})).empty


def young(k: int, honest: bool = True) -> LayerRecord:
    left = 0.9**k
    mean, var = STATISTICS["running_mean"], STATISTICS["running_var"]
    share = 1 - left if honest else 1.0
    changes = {"running_mean": share * mean, "running_var": share * var + 1 - share, "n_batches_tracked": k}
    return norm(changes=changes)


@pytest.mark.parametrize(("k", "fires"), [(5, 1), (21, 1), (22, 0)])
def test_initial_values_that_still_weigh(k, fires):
    """Fails if the weight is not (1 - m)^k, or the threshold moves: 0.9^21 = 0.109, 0.9^22 = 0.098."""
    assert len(fired("statistics-young", young(k))) == fires


def test_a_short_count_over_good_statistics_is_no_fault():
    """Fails if the count alone is believed: re-estimated statistics are plain averages over few batches."""
    assert fired("statistics-young", young(5, honest=False)).empty


def test_means_that_are_too_small_to_tell_are_not_young():
    """Fails if noise counts: the running mean of a channel at a tenth of its std, 40 samples, is uncertain by more."""
    rows = np.random.default_rng(5).normal(0.1, 1, size=(40, 3, 1))
    mean = 0.9 * rows.mean((0, 2))
    same = site(
        rows, "bn", **{**LEARNED, "running_mean": mean, "running_var": np.ones(3)}, n_batches_tracked=20
    )
    assert fired("statistics-young", same).empty
    assert len(fired("statistics-young", young(20))) == 1
