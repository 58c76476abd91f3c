"""Inputs that are not as in training: each condition on its own, by tables of one row."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bnprobe.rules.preprocessing import (
    CLEAR,
    _look,
    _rarer,
    _share,
    _undo,
    constants_missing,
    explained,
    reported_at,
)
from rules.edited import edited_rows, evidence, findings

LIMITS = evidence().limits
TOP = LIMITS.variance_ratio**0.5


def shown(*rows: dict[str, Any]) -> Any:
    return SimpleNamespace(preprocessing=pd.DataFrame(list(rows)))


@pytest.mark.parametrize(
    ("rows", "is_explained"),
    [
        ((), False),
        (({"mistake": "", "light": False},), False),
        (({"mistake": "x", "light": False},), True),
        (({"mistake": "x", "light": True},), False),
        (({"mistake": "", "light": True},), False),
    ],
)
def test_what_explains_the_inputs(rows: tuple[dict[str, Any], ...], is_explained: bool) -> None:
    """Fails if other light explains, or nothing does."""
    assert bool(explained(shown(*rows))) is is_explained


@pytest.mark.parametrize(
    ("constants", "missing"), [((), False), (("given",), False), (("none",), True), (("guessed",), True)]
)
def test_constants_that_nobody_gave(constants: tuple[str, ...], missing: bool) -> None:
    """Fails if they are asked for where they were given, or where nothing is to be read by them."""
    assert constants_missing(shown(*({"constants": c} for c in constants))) is missing


def test_parts_of_the_sentences() -> None:
    """Fails if what is rarer is told without the word, or code is promised that is not there."""
    plain, rare = pd.Series({"rarer": "", "undo": ""}), pd.Series({"rarer": "a; b", "undo": "x = x / 2"})
    assert _rarer(plain) == _look(plain) == ""
    assert _rarer(rare) == ", or, which is rarer, a or b"
    assert _look(rare).startswith("Look at one image")
    assert "Look at one image" in _undo(plain)
    assert _undo(rare) == "Preprocess as in training. To convert the inputs as they are now: `x = x / 2`."


@pytest.mark.parametrize(
    ("explains", "says"),
    [(0.5, "50%"), (0.994, "99%"), (0.9949, "99%"), (0.995, "more than 99%"), (1.0, "more than 99%")],
)
def test_a_share_is_never_all(explains: float, says: str) -> None:
    """Fails if 100% is told."""
    assert _share(pd.Series({"explains": explains})) == says


SIZE = {"detail_ratio": 9.0, "verdict": "shifted", "n_images": 500, "initial_weight": 0.0, "call": 0}


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({}, "more fine detail"),
        ({"detail_ratio": TOP * 1.001}, "more fine detail"),
        ({"detail_ratio": TOP * 0.999}, ""),
        ({"detail_ratio": 0.999 / TOP}, "smoother"),
        ({"detail_ratio": 1.001 / TOP}, ""),
        ({"detail_ratio": math.nan}, ""),
        ({"verdict": "never updated"}, ""),
        ({"n_images": LIMITS.few_images}, "more fine detail"),
        ({"n_images": LIMITS.few_images - 1}, ""),
        ({"initial_weight": LIMITS.initial_weight}, ""),
        ({"initial_weight": LIMITS.initial_weight * 0.999}, "more fine detail"),
        ({"initial_weight": math.nan}, "more fine detail"),
    ],
)
def test_images_of_another_size(cells: dict[str, Any], says: str) -> None:
    """Fails if a limit is elsewhere, the direction is turned over, or young statistics tell of detail."""
    found = findings("input-size", edited_rows({**SIZE, **cells}))
    assert [says in one.says for one in found] == ([True] if says else [])


@pytest.mark.parametrize(
    ("left_over", "certain", "reported"),
    [
        (CLEAR * 0.25, True, False),
        (math.nextafter(CLEAR * 0.25, 1), True, True),
        (0.0, True, False),
        (CLEAR / 0.25, True, True),
        (0.0, False, True),
    ],
)
def test_another_cause_is_preferred_where_it_leaves_hardly_more(
    left_over: float, certain: bool, reported: bool
) -> None:
    """Fails if a cause that leaves much more than the mistake of preprocessing hides it."""
    inputs = {"layer": "bn", "mistake": "x", "shift": 9.0, "scale_predicted": 1.0, "certain": True}
    found = replace(
        evidence(),
        preprocessing=pd.DataFrame([{**inputs, "left_over": 0.25, "light": False}]),
        causes=pd.DataFrame(
            [{"layer": "bn", "call": 0, "cause": "factor", "certain": certain, "left_over": left_over}]
        ),
    )
    assert bool(reported_at(found)) is reported
