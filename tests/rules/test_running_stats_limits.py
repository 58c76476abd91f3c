"""Inputs beside running statistics: each threshold exactly at its limit, and causes that may be named."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from bnprobe.rules import running_stats
from bnprobe.rules.rule import Evidence
from bnprobe.rules.running_stats import NONE_LEFT, _groups_are_shown, _moved, _trained, _what_differs
from rules.edited import edited, edited_rows, evidence, findings, frame

LIMITS = evidence().limits
SHIFT, TOP, SHARE = LIMITS.shift, LIMITS.variance_ratio, LIMITS.surely_shifted
FITS = {
    "shift_rms": 0.0,
    "shifted_share": 0.0,
    "var_ratio_median": 1.0,
    "scaled_share": 1.0,
    "n_images": LIMITS.few_images,
}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"var_ratio_median": TOP}, ""),
        ({"var_ratio_median": math.nextafter(TOP, 9)}, "scale differs"),
        ({"var_ratio_median": 1 / TOP}, ""),
        ({"var_ratio_median": math.nextafter(1 / TOP, 0)}, "scale differs"),
        ({"var_ratio_median": 0.0}, "scale differs"),
        ({"var_ratio_median": math.nan}, ""),
        ({"var_ratio_median": 9.0, "scaled_share": SHARE}, ""),
        ({"var_ratio_median": 9.0, "scaled_share": math.nextafter(SHARE, 1)}, "scale differs"),
        ({"var_ratio_median": 9.0, "scaled_share": SHARE, "n_images": LIMITS.few_images - 1}, "scale differs"),
        ({"shift_rms": SHIFT, "shifted_share": 1.0}, ""),
        ({"shift_rms": math.nextafter(SHIFT, 9), "shifted_share": 1.0}, "mean differs"),
        ({"shift_rms": 9.0, "shifted_share": SHARE}, ""),
        ({"shift_rms": 9.0, "shifted_share": math.nextafter(SHARE, 1)}, "mean differs"),
        ({"shift_rms": 9.0, "shifted_share": math.nan}, ""),
        ({"shift_rms": 9.0, "var_ratio_median": 9.0}, "mean and scale differ"),
    ],
)  # fmt: skip
def test_what_differs_at_each_limit(row: dict[str, Any], what: str) -> None:
    """Fails if a limit is beyond itself."""
    assert _what_differs(pd.Series({**FITS, **row}), LIMITS) == what


def causes(*rows: tuple[str, str, int, bool]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["layer", "cause", "call", "certain"])


AWAY, NEAR = math.nextafter(LIMITS.groups, 9), LIMITS.groups


@pytest.mark.parametrize(
    ("found", "discrepancies", "shown"),
    [
        (causes(), (AWAY, AWAY), False),
        (causes(("a", "groups", 0, True)), (AWAY, AWAY), True),
        (causes(("a", "one group", 0, True)), (AWAY, AWAY), True),
        (causes(("a", "groups", 0, True)), (AWAY, AWAY, AWAY), False),
        # what the first norm that does not match is given, no other has changed
        (causes(("b", "groups", 0, True)), (AWAY, AWAY), False),
        (causes(("b", "one group", 0, True)), (NEAR, AWAY), True),
        # a norm at the limit is none that does not match
        (causes(("a", "groups", 0, True)), (AWAY, AWAY, NEAR), True),
        (causes(("a", "groups", 0, False)), (AWAY, AWAY), False),
        (causes(("a", "dropout", 0, True)), (AWAY, AWAY), False),
        # of the causes of one norm the first
        (causes(("a", "dropout", 0, True), ("a", "groups", 0, True)), (AWAY, AWAY), False),
        (causes(("a", "groups", 0, True), ("a", "groups", 0, True)), (AWAY, AWAY, AWAY), False),
        (causes(("a", "groups", 0, True), ("b", "groups", 0, True)), (AWAY, AWAY, AWAY, AWAY), True),
        (causes(("a", "dropout", 0, False), ("a", "groups", 0, True)), (AWAY, AWAY), True),
    ],
)
@pytest.mark.parametrize("reported", ["", "a"])
def test_groups_are_a_cause_where_half_of_the_norms_show_them(
    monkeypatch: pytest.MonkeyPatch,
    found: pd.DataFrame,
    discrepancies: tuple[float, ...],
    shown: bool,
    reported: str,
) -> None:
    """Fails if half are not enough, less are, what is not certain counts, or inputs that are reported may show groups."""
    monkeypatch.setattr(running_stats, "reported_at", lambda _: reported)
    norms = replace(edited_rows(*({"discrepancy": d} for d in discrepancies)), causes=found)
    assert _groups_are_shown(norms) is (shown and not reported)


MOVED = {**FITS, "shift_rms": 0.8, "shifted_share": 1.0}
GROUPS = {
    "layer": "bn",
    "call": 0,
    "cause": "groups",
    "certain": True,
    "explains": 0.9,
    "next_best": 0.1,
    "left_over": 0.1,
    "facts": {},
}
FACTOR = {**GROUPS, "cause": "factor", "facts": {"factor": 999.0}}
ONE_GROUP = {**GROUPS, "cause": "one group"}
LACKS = "their variance lacks the variance between groups of samples"


@pytest.mark.parametrize(
    ("row", "cause", "shown", "says"),
    [
        (MOVED, GROUPS, True, LACKS),
        (MOVED, GROUPS, False, "their mean differs"),
        (MOVED, ONE_GROUP, True, "they come from one group of such samples only"),
        (MOVED, ONE_GROUP, False, "their mean differs"),
        (MOVED, FACTOR, False, "times too large"),
        (MOVED, FACTOR, True, "times too large"),
        (MOVED, {**GROUPS, "cause": "young", "facts": {"initial_weight": 0.5}}, True, None),
        # means need not move, nor variances by much, where samples come in groups
        ({**FITS, "discrepancy": AWAY}, GROUPS, True, LACKS),
        ({**FITS, "discrepancy": NEAR}, GROUPS, True, None),
        ({**FITS, "discrepancy": AWAY}, GROUPS, False, None),
        ({**FITS, "discrepancy": 9.0}, ONE_GROUP, True, None),
        ({**FITS, "discrepancy": 9.0}, FACTOR, True, None),
    ],
)
def test_which_cause_is_said(
    monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], cause: dict[str, Any], shown: bool, says: str | None
) -> None:
    """Fails if groups are named that are not shown, or another cause needs no difference beyond the thresholds."""
    monkeypatch.setattr(running_stats, "_groups_are_shown", lambda _: shown)
    found = findings(
        "data-shifted", replace(edited(evidence(), verdict="same", **row), causes=pd.DataFrame([cause]))
    )
    assert [says in one.says for one in found] == [True] * (says is not None)


@pytest.mark.parametrize(
    ("pre_var", "constant"),
    [
        (NONE_LEFT, True),
        ([NONE_LEFT, 0.0, NONE_LEFT], True),
        ([NONE_LEFT, 0.0, math.nextafter(NONE_LEFT, 1)], False),
        (math.nan, False),
    ],
)
def test_channels_that_hold_one_constant_each(pre_var: Any, constant: bool) -> None:
    """Fails if one channel that varies is not enough for inputs that do, or what is left at most is too much."""
    base = edited(evidence(), {"pre_var": pre_var, "running_var": 1.0}, **MOVED)
    (found,) = findings("data-shifted", base)
    assert ("channels hold one constant each" in found.says) is constant
    assert ("mean differs" in found.says) is not constant


SETTLED = {"mode": "eval", "initial_weight": 0.0}


@pytest.mark.parametrize(
    ("at", "row", "breaks", "is_new", "told"),
    [
        (0, {}, False, False, True),
        (1, {}, False, False, True),
        # of a new network the first norm sees the inputs, once it has settled; others are off as weights move
        (0, SETTLED, False, True, True),
        (0, {"mode": "eval", "initial_weight": LIMITS.initial_weight}, False, True, False),
        (1, SETTLED, False, True, False),
        # but for one that jumps
        (1, SETTLED, True, True, True),
        (1, {}, True, True, True),
    ],
)
def test_norms_of_a_new_network_that_are_off(
    monkeypatch: pytest.MonkeyPatch, at: int, row: dict[str, Any], breaks: bool, is_new: bool, told: bool
) -> None:
    """Fails if weights that outrun the statistics of a new network are taken for other data, or other data for them."""
    monkeypatch.setattr(Evidence, "is_new", is_new)
    monkeypatch.setattr(running_stats, "breaks", lambda _, i, __: breaks and i == at)
    found = edited(edited_rows(FITS, FITS, FITS), at=at, verdict="same", **{**MOVED, **row})
    assert [one.layer for one in findings("data-shifted", found)] == ["abc"[at]] * told


@pytest.mark.parametrize(
    ("gamma", "beta", "moved", "trained"),
    [
        ([1.0, 1.0, 2.0], [0.0, 0.0, 0.1], {"γ": "gamma", "β": "beta"}, "γ and β were"),
        ([1.0, 1.0, 1.0], [0.0, 0.1, 0.0], {"β": "beta"}, "β was"),
        ([0.0, 1.0, math.nan], [0.0, math.nan, 0.0], {"γ": "gamma"}, "γ was"),
        ([math.nan] * 3, [math.nan] * 3, {}, None),
    ],
)
def test_which_vectors_were_trained(
    gamma: list[float], beta: list[float], moved: dict[str, str], trained: str | None
) -> None:
    """Fails if every channel must have moved, or one that is missing has."""
    channels = frame(gamma=gamma, beta=beta)
    assert _moved(channels) == moved
    if trained:
        assert _trained(channels) == trained


@pytest.mark.parametrize("kind", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize(
    ("var", "channels"),
    [
        ([math.nan, 1.0, 1.0], (0,)),
        ([1.0, -1e-9, math.inf], (1, 2)),
        ([0.0, 0.5, 2.0], None),
    ],
)
def test_running_variances_that_are_poisoned(
    kind: str, var: list[float], channels: tuple[int, ...] | None
) -> None:
    """Fails if one channel without a number makes a norm of another kind one that stores none, or 0 is negative."""
    found = findings("statistics-poisoned", edited(evidence(), {"running_var": var}, kind=kind))
    assert [one.channels for one in found] == ([channels] if channels else [])
