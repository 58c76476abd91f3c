"""Inputs that are not as in training: each condition on its own, by tables of one row."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from bnprobe.recording.names import OF_CHANNELS
from bnprobe.rules.preprocessing import (
    BEYOND_CHANCE,
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
    ("constants", "left_over", "certain", "reported"),
    [
        ("guessed", CLEAR * 0.25, True, False),
        ("guessed", math.nextafter(CLEAR * 0.25, 1), True, True),
        ("guessed", 0.0, True, False),
        ("guessed", CLEAR / 0.25, True, True),
        ("guessed", 0.0, False, True),
        ("given", 0.25 / CLEAR, True, False),
        ("given", math.nextafter(0.25 / CLEAR, 1), True, True),
        ("no pixels", 6.0, True, False),
        ("no pixels", 0.0, False, True),
    ],
)
def test_another_cause_is_preferred_where_it_leaves_hardly_more(
    constants: str, left_over: float, certain: bool, reported: bool
) -> None:
    """Fails if a cause that leaves much more than the mistake of preprocessing hides it, or one with a number to fit is
    preferred to a map that the constants of training fix, though it fits no better."""
    inputs = {"layer": "bn", "mistake": "x", "shift": 9.0, "scale_predicted": 1.0, "certain": True}
    found = replace(
        evidence(),
        preprocessing=pd.DataFrame([{**inputs, "left_over": 0.25, "light": False, "constants": constants}]),
        causes=pd.DataFrame(
            [{"layer": "bn", "call": 0, "cause": "factor", "certain": certain, "left_over": left_over}]
        ),
    )
    assert bool(reported_at(found)) is reported


BEYOND = math.nextafter(BEYOND_CHANCE, 1)


@pytest.mark.parametrize(
    ("cells", "severity"),
    [
        ({"scaled_share": BEYOND}, "warning"),
        ({"shifted_share": BEYOND}, "warning"),
        ({"scaled_share": BEYOND_CHANCE}, "info"),
        ({"scaled_share": math.nan, "shifted_share": math.nan}, "info"),
        ({"scaled_share": BEYOND, "n_images": LIMITS.few_images - 1}, "info"),
    ],
)
def test_a_channel_of_the_input_that_holds_one_value(cells: dict[str, Any], severity: str) -> None:
    """Fails if it is a warning though training may have held it so, or a note though the first norm shows another input."""
    usual = {
        "shifted_share": 0.0,
        "scaled_share": 0.0,
        "n_images": LIMITS.few_images,
        "constant_inputs": "5 (0)",
    }
    (found,) = findings("input-not-as-trained", edited_rows({**usual, **cells}))
    assert found.severity == severity
    assert found.says == "Of the model's input, channel 5 (0) holds one value in the whole first batch."
    assert findings("input-not-as-trained", edited_rows({**usual, **cells, "constant_inputs": ""})) == []


def test_several_channels_of_the_input_are_one_finding() -> None:
    """Fails if two channels are one in words, or several norms that take the input make a finding each."""
    both = {"constant_inputs": "1 (0), 5 (0.5)"}
    (found,) = findings("input-not-as-trained", edited_rows(both, both))
    assert "channels 1 (0), 5 (0.5) hold one value" in found.says
    x = torch.randn(2, 3, 4, 4)
    x[:, 1] = 0
    low, high = eval(re.findall(r"`print\((.*)\)`", found.do)[0], {"x": x})
    assert (low == high).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("cells", "at"),
    [
        ({}, ""),
        ({"certain": True}, "a"),
        ({"constants": OF_CHANNELS}, "a"),
    ],
)
def test_inputs_do_not_explain_norms_that_are_off_by_far_more(cells: dict[str, Any], at: str) -> None:
    """Fails if a map of the inputs that may be it is reported where weights newer than the statistics explain all norms,
    or one that is certain is not."""
    row = {
        "layer": "a",
        "mistake": "x",
        "light": False,
        "shift": 0.9,
        "scale_predicted": 9.0,
        "left_over": 0.1,
    }
    table = pd.DataFrame([{**row, "certain": False, "constants": "none", **cells}])
    norms = replace(edited_rows(*({"discrepancy": d} for d in (0.7, 2.4, 3.5))), preprocessing=table)
    assert reported_at(norms) == at
    passed_on = replace(edited_rows(*({"discrepancy": d} for d in (0.7, 0.8, 0.9))), preprocessing=table)
    assert reported_at(passed_on) == "a"
