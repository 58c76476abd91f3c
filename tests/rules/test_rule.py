"""The form of a rule: which sites it is handed, and the words that all rules share."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bnprobe.rules.rule import _run, follows_batches, indices, share_severity, unsound, while_training
from bnprobe.rules.thresholds import Limits
from rules.edited import edited, evidence, healthy


@pytest.mark.parametrize(
    ("places", "expected"),
    [([2], slice(2, 3)), ([2, 3, 4], slice(2, 5)), ([0, 1], slice(0, 2)), ([0, 2], None), ([4, 3], None)],
)
def test_rows_that_follow_one_another_are_a_slice(places: list[int], expected: slice | None) -> None:
    """Fails if a row is lost at an end, or rows with a gap are taken as a whole."""
    found = _run(np.array(places))
    if expected is None:
        np.testing.assert_array_equal(found, places)
    else:
        assert found == expected


def test_sites_are_those_of_marked_channels_or_layers() -> None:
    """Fails if a site is handed out twice, in another order, or for another site's channel."""
    three = evidence(*map(healthy, "abc"))
    marked = pd.Series([False] * 4 + [True, True] + [False] * 3)

    def names(channels: pd.Series, layers: pd.Series | None = None) -> list[str]:
        return [str(row["layer"]) for row, _ in three.sites_with(channels, layers)]

    assert names(marked) == ["b"]
    assert names(~marked) == ["a", "b", "c"]
    assert names(marked, pd.Series([True, False, False])) == ["a", "b"]
    assert names(pd.Series([False] * 9)) == []
    assert [len(channels) for _, channels in three.sites] == [3, 3, 3]
    assert [channels["layer"].unique().tolist() for _, channels in three.sites] == [["a"], ["b"], ["c"]]


def test_channels_of_a_site_need_not_follow_one_another() -> None:
    """Fails if a table in another order gives a site the channels of another."""
    two = evidence(*map(healthy, "ab"))
    mixed = two.channels.iloc[[0, 3, 1, 4, 2, 5]].reset_index(drop=True)
    sites = type(two)(two.layers, mixed, two.unread).sites
    assert [channels["channel"].tolist() for _, channels in sites] == [[0, 1, 2], [0, 1, 2]]
    assert [channels["layer"].unique().tolist() for _, channels in sites] == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("by", "moved", "expected"),
    [
        ("batch", 0.1, True),
        ("sample", 0.1, True),
        ("running", 0.1, False),
        ("both", 0.1, False),
        ("batch", 0.0, False),
        ("batch", math.nan, False),
    ],
)
def test_norms_whose_statistics_follow_what_is_fed(by: str, moved: float, expected: bool) -> None:
    """Fails if statistics in use are on their way, or those that stood still."""
    assert follows_batches(pd.Series({"normalized_by": by, "memory_moved": moved})) is expected


@pytest.mark.parametrize(
    ("training", "calls", "learning", "expected"),
    [(3, 3, 1, True), (3, 3, 0, False), (2, 3, 2, False), (math.nan, 3, math.nan, False)],
)
def test_a_model_that_was_being_trained(training: float, calls: int, learning: float, expected: bool) -> None:
    """Fails if one call in train mode, or train mode without learning, is training."""
    row = pd.Series({"n_calls_model_training": training, "n_calls": calls, "n_calls_learning": learning})
    assert while_training(row) is expected


def test_what_is_not_finite_in_any_column() -> None:
    """Fails if one of several columns, or minus infinity, is overlooked."""
    table = pd.DataFrame({"a": [1.0, np.nan, 2.0, -np.inf], "b": [1.0, 2.0, np.inf, 3.0]})
    assert unsound(table, "a").tolist() == [False, True, False, True]
    assert unsound(table, "a", "b").tolist() == [False, True, True, True]
    assert indices(pd.DataFrame({"channel": [3, 1]})) == (3, 1)


@pytest.mark.parametrize(("n", "severity"), [(1, "info"), (2, "warning"), (8, "warning")])
def test_a_quarter_of_the_channels_is_a_warning(n: int, severity: str) -> None:
    """Fails if a quarter itself is a note."""
    channels = pd.DataFrame({"channel": range(8)})
    assert share_severity(channels[:n], channels, Limits()) == severity


def test_a_network_of_which_nothing_is_known_is_not_new() -> None:
    """Fails if an empty table makes a network new, or one β far from 0 does not settle it."""
    new = edited(
        evidence(),
        {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0},
        n_batches_tracked=0,
        n_updates=0,
    )
    assert new.is_new
    assert not edited(new, {"beta": [0.0, 0.0, -0.1]}).is_new
    assert not edited(new, {"gamma": [1.0, 1.0, 0.89]}).is_new
    assert not type(new)(new.layers[:0], new.channels[:0], new.unread).is_new
