"""Causes in words: whose cause it is, whose it may be passed on from, and how a share is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bnprobe.rules import causes
from bnprobe.rules.edits import Recalibrate, RecalibrateOne, SetMode

FACTS = {"names": "drop1, drop2", "p": 0.5}
ROW = {
    "layer": "b",
    "call": 0,
    "cause": "dropout",
    "certain": True,
    "explains": 0.8,
    "next_best": 0.25,
    "facts": FACTS,
}


def evidence(*rows: dict[str, Any]) -> Any:
    found = pd.DataFrame([{**ROW, **row} for row in rows], columns=list(ROW))
    return SimpleNamespace(causes=found, layers=pd.DataFrame({"layer": ["a", "b", "c"]}))


def row(layer: str, call: int = 0) -> pd.Series:
    cells = {"layer": layer, "call": call, "kind": "batch_norm", "class_name": "BatchNorm2d"}
    return pd.Series(cells)


@pytest.mark.parametrize(
    ("rows", "at", "explains"),
    [
        ((), ("b", 0), None),
        (({},), ("b", 0), 0.8),
        (({},), ("b", 1), None),
        (({},), ("c", 0), None),
        (({"certain": False},), ("b", 0), None),
        (({"certain": False}, {"explains": 0.7}), ("b", 0), 0.7),
        (({"explains": 0.7}, {"explains": 0.6}), ("b", 0), 0.7),
        (({"call": 1, "explains": 0.5}, {"layer": "c"}), ("b", 1), 0.5),
    ],
)
def test_the_cause_of_a_call(
    rows: tuple[dict[str, Any], ...], at: tuple[str, int], explains: float | None
) -> None:
    """Fails if another call's or norm's cause is its own, or one that is not certain is told."""
    found = causes.cause_of(evidence(*rows), row(*at))
    assert (None if found is None else found["explains"]) == explains


@pytest.mark.parametrize(
    ("change", "at", "told"),
    [
        ({}, "c", True),
        ({}, "b", False),
        ({}, "a", False),
        ({"cause": "young"}, "c", False),
        ({"certain": False}, "c", False),
        ({"layer": "a"}, "b", True),
    ],
)
def test_dropout_of_an_earlier_norm_may_be_passed_on(change: dict[str, Any], at: str, told: bool) -> None:
    """Fails if a later norm, this one, another cause, or one that is not certain explains it."""
    said = causes.upstream(evidence(change), row(at))
    where = change.get("layer", "b")
    assert said == (
        f" At {where} dropout explains 80% of the discrepancy (drop1, drop2, which is off in eval mode), and that may be "
        "passed on to this norm."
        if told
        else ""
    )
    assert causes.upstream(evidence(), row(at)) == ""


@pytest.mark.parametrize(
    ("explains", "next_best", "says"),
    [
        (0.8, 0.25, "80% of the discrepancy in mean and std; the next best cause explains 25%."),
        (0.99, 0.0, "99% of the discrepancy in mean and std; the next best cause explains 0%."),
        (0.991, -0.5, "more than 99% of the discrepancy in mean and std; the next best cause explains 0%."),
    ],
)
def test_how_well_a_cause_explains(explains: float, next_best: float, says: str) -> None:
    """Fails if a cause that explains less than nothing is told with a sign, or 99% is more than it is."""
    cause = pd.Series({**ROW, "explains": explains, "next_best": next_best})
    assert causes.because(cause) == f" This explains {says}"
    assert causes.because(pd.Series({**ROW, "cause": "few samples"})) == ""


def test_what_undoes_a_cause() -> None:
    """Fails if dropout is not put on to see whether it is the cause, or a norm is renewed that others are not."""
    dropout = causes.undone_by(pd.Series(ROW), row("b"))
    assert dropout is not None
    assert dropout.edits == (Recalibrate(dropout=False),)
    assert dropout.cause == (SetMode("drop1", training=True), SetMode("drop2", training=True))
    assert causes.undone_by(pd.Series({**ROW, "cause": "few samples"}), row("b")) is None
    young = causes.undone_by(pd.Series({**ROW, "cause": "young"}), row("b"))
    assert young is not None
    assert young.edits == (Recalibrate(),)
    for change, of_samples in (
        ({"kind": "instance_norm"}, True),
        ({"class_name": "FrozenBatchNorm2d"}, False),
    ):
        one = causes.undone_by(pd.Series({**ROW, "cause": "groups"}), pd.Series({**row("b"), **change}))
        assert one is not None
        assert one.edits == (RecalibrateOne("b", of_samples=of_samples),)


def test_numbers_of_a_cause_as_they_are_printed() -> None:
    """Fails if a share is told as a number, or a factor with all its digits."""
    given = {
        "factor": 999.98765,
        "share": 0.256,
        "of_var": 0.5,
        "initial_weight": 0.0412,
        "few": 0.03,
        "p": 0.5,
    }
    printed = {
        "factor": "1000",
        "share": "26%",
        "of_var": "50%",
        "initial_weight": "4%",
        "few": "3%",
        "p": 0.5,
    }
    assert causes._words(given) == printed
    assert causes._words({"p": 0.5}) == {"p": 0.5}
