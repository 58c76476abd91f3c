"""What two sides store that no distance can tell, vector by vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from measures.sites import site, some_rows

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.stored import channel_columns, layer_columns

NAN, INF = float("nan"), float("inf")
FIELDS = {"gamma": 1.5, "beta": 0.5, "running_mean": [1.0, 2.0, 3.0], "running_var": [1.0, 2.0, 3.0]}
ROWS = some_rows()


def pair(a: dict[str, Any], b: dict[str, Any]) -> Pair:
    return Pair(*(site(ROWS, **{**FIELDS, **changes}) for changes in (a, b)))


@pytest.mark.parametrize(
    ("a", "b", "words_a", "words_b"),
    [
        ({}, {}, "", ""),
        ({}, {"gamma": [1.0, NAN, INF]}, "", "γ is not finite in 2 of 3 channels"),
        ({"gamma": [1.0, NAN, INF]}, {"gamma": [1.0, NAN, INF]}, "", ""),
        ({"gamma": [1.0, NAN, 1.0]}, {"gamma": [1.0, NAN, INF]}, "", "γ is not finite in 1 of 3 channels"),
        ({"beta": -INF}, {}, "β is not finite in 3 of 3 channels", ""),
        ({}, {"running_var": [1.0, -1e-9, 0.0]}, "", "running_var is below 0 in 1 of 3 channels"),
        (
            {},
            {"running_var": [-INF, -1.0, 1.0]},
            "",
            "running_var is not finite in 1 of 3 channels and running_var is below 0 in 1 of 3 channels",
        ),
        ({"running_var": [-1.0, 2.0, 3.0]}, {"running_var": [-1.0, 2.0, 3.0]}, "", ""),
        (
            {"running_var": [-1.0, 2.0, 3.0]},
            {"running_var": [-2.0, 2.0, 3.0]},
            "running_var is below 0 in 1 of 3 channels",
            "running_var is below 0 in 1 of 3 channels",
        ),
        ({}, {"running_mean": [-1.0, -2.0, -3.0], "gamma": -1.5, "beta": -2.0}, "", ""),
        ({"gamma": None}, {"gamma": [NAN, 1.0, 1.0]}, "", "γ is not finite in 1 of 3 channels"),
    ],
)
def test_values_that_are_poison_on_one_side(
    a: dict[str, Any], b: dict[str, Any], words_a: str, words_b: str
) -> None:
    """Fails if what both sides share is told, a negative mean counts as a negative variance, or sides are exchanged."""
    found = layer_columns(pair(a, b))
    assert (found["poison_a"], found["poison_b"]) == (words_a, words_b)


def test_the_channels_that_are_poisoned() -> None:
    """Fails if another channel is named, or one vector's channels hide another's."""
    both = pair({}, {"gamma": [1.0, NAN, 1.0], "running_var": [1.0, 2.0, -1.0]})
    found = channel_columns(both)
    assert found["poisoned_b"].tolist() == [False, True, True]
    assert found["poisoned_a"].tolist() == [False, False, False]
    bare = dict.fromkeys(FIELDS)
    none = channel_columns(Pair(site(ROWS, **bare), site(ROWS, **bare)))
    assert none["poisoned_a"].tolist() == none["poisoned_b"].tolist() == [False] * 3
    assert none["poisoned_a"].dtype == np.bool_


@pytest.mark.parametrize(
    ("a", "b", "missing_a", "missing_b"),
    [
        ({}, {}, "", ""),
        ({"gamma": None}, {}, "γ", ""),
        ({}, {"beta": None}, "", "β"),
        ({"gamma": None}, {"gamma": None}, "", ""),
        ({"running_mean": None, "running_var": None}, {}, "running_mean, running_var", ""),
        ({"gamma": None}, {"beta": None}, "γ", "β"),
    ],
)
def test_vectors_that_one_side_lacks(
    a: dict[str, Any], b: dict[str, Any], missing_a: str, missing_b: str
) -> None:
    """Fails if a vector that both lack is missed, or sides are exchanged."""
    found = layer_columns(pair(a, b))
    assert (found["missing_a"], found["missing_b"]) == (missing_a, missing_b)
