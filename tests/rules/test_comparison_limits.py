"""Two recordings: where they begin to differ, dropout and modes, each condition exactly at its limit."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.rules.comparison import ROUNDING, _origin
from bnprobe.rules.rule import Evidence
from rules.edited import findings
from rules.test_comparison import edited, three

ALIKE = {"pre_gap": 0.0, "pre_noise": 0.25, "post_gap": 0.0, "post_noise": 0.25}


def two(*rows: dict[str, Any]) -> Evidence:
    return three(*({**ALIKE, **row} for row in (*rows, {}, {})[:3]))


@pytest.mark.parametrize(
    ("rows", "origin"),
    [
        (({},), None),
        # three times the noise is beyond it
        (({"pre_gap": 0.75},), ("a", "pre")),
        (({"pre_gap": 0.749},), None),
        (({"post_gap": 0.75},), ("a", "post")),
        (({"post_gap": 0.749},), None),
        # the inputs of a norm come before its outputs, and these before the next norm
        (({"pre_gap": 0.8, "post_gap": 0.8},), ("a", "pre")),
        (({"post_gap": 0.8}, {"pre_gap": 0.8}), ("a", "post")),
        (({}, {"pre_gap": 0.8}), ("b", "pre")),
        # without a noise the order of additions is the only excuse
        (({"pre_gap": ROUNDING, "pre_noise": math.nan},), None),
        (({"pre_gap": math.nextafter(ROUNDING, 1), "pre_noise": math.nan},), ("a", "pre")),
        (({"pre_gap": math.nextafter(ROUNDING, 1), "pre_noise": 0.0},), ("a", "pre")),
        (({"pre_gap": math.nan, "post_gap": math.nan},), None),
    ],
)
def test_where_two_sides_begin_to_differ(rows: tuple[dict[str, Any], ...], origin: tuple[str, str] | None):
    """Fails if a gap at three times the noise is within it, or outputs are looked at before inputs."""
    found = _origin(two(*rows))
    assert (None if found is None else (found[0]["layer"], found[1])) == origin


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"pre_gap": 0.5, "pre_noise": 0.0}, True),
        ({"pre_gap": 0.499, "pre_noise": 0.0}, False),
        ({"pre_gap": 0.75, "pre_noise": 0.25}, True),
        ({"pre_gap": 0.74, "pre_noise": 0.25}, False),
    ],
)
def test_inputs_that_differ_at_the_limits(row: dict[str, Any], told: bool):
    """Fails if the threshold, or three times the noise, is not beyond itself."""
    found = findings("inputs-differ", two(row))
    assert [one.layer for one in found] == ["a"] * told


MODES = {"normalized_by_a": "running", "normalized_by_b": "batch", "post_gap": 0.75, "post_noise": 0.25}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, True),
        ({"post_gap": 0.749}, False),
        ({"post_gap": 0.5, "post_noise": 0.0}, True),
        ({"post_gap": 0.499, "post_noise": 0.0}, False),
        ({"post_noise": math.nan}, True),
        ({"pre_gap": 0.374}, True),
        ({"pre_gap": 0.375}, False),
        ({"normalized_by_a": "batch", "normalized_by_b": "running"}, True),
        ({"normalized_by_b": "running"}, False),
        ({"normalized_by_a": "batch"}, False),
    ],
)
def test_modes_that_differ_at_the_limits(row: dict[str, Any], told: bool):
    """Fails if a limit is on the other side of itself, or half of the gap may have come in with the inputs."""
    found = findings("modes-disagree", two({**MODES, **row}))
    assert [one.layer for one in found] == ["a"] * told


DROPPED = {"mode_a": "train", "mode_b": "eval", "dropout_before": "d", "pre_gap": 0.75, "pre_noise": 0.25}


@pytest.mark.parametrize(
    ("cells", "row", "told"),
    [
        ({}, {}, True),
        ({}, {"pre_gap": 0.749}, False),
        ({}, {"pre_gap": 0.5, "pre_noise": 0.0}, True),
        ({}, {"pre_gap": 0.499, "pre_noise": 0.0}, False),
        ({}, {"pre_noise": math.nan}, True),
        # means may have moved by half of the gap: 0.375, the root of the mean square
        ({"pre_shift": [0.375, -0.375, 0.375]}, {}, True),
        ({"pre_shift": [0.375, -0.375, 0.376]}, {}, False),
        # one of three channels that varies less is too many, and one that varies as much
        ({"pre_var_a": [4.0, 4.0, 0.9]}, {}, False),
        ({"pre_var_a": [4.0, 4.0, 1.0]}, {}, False),
        ({"pre_var_a": [4.0, 4.0, 1.001]}, {}, True),
    ],
)
def test_dropout_at_the_limits(cells: dict[str, Any], row: dict[str, Any], told: bool):
    """Fails if a limit is on the other side of itself, or a sign of a shift counts."""
    wider = {"pre_var_a": 4.0, "pre_var_b": 1.0, "pre_shift": 0.0, **cells}
    found = findings("modes-disagree", edited(two(), wider, **{**DROPPED, **row}))
    assert [one.says.startswith("Dropout") for one in found] == [True] * told


@pytest.mark.parametrize(("fires", "told"), [(0.001, True), (0.00099, False)])
def test_how_often_a_channel_must_have_been_positive(fires: float, told: bool):
    """Fails if the limit itself is too seldom: one value in a thousand."""
    base = edited(two(), {"fires_a": [fires, 0.5, 0.5], "fires_b": [0.0, 0.5, 0.5]})
    assert base.limits.fired == 0.001
    assert [one.channels for one in findings("channels-silenced", base)] == [(0,)] * told


@pytest.mark.parametrize(
    ("a", "b", "severity"),
    [
        (1.0, 1.0, "warning"),
        (1.0, math.nan, "warning"),
        (math.nan, 1.0, "warning"),
        ([math.nan, 1.0, math.nan], math.nan, "warning"),
        (math.nan, math.nan, "info"),
    ],
)
def test_dropout_spoils_running_statistics_of_either_side(a: Any, b: Any, severity: str):
    """Fails if both sides, and every channel, must store them."""
    wider = {"pre_var_a": 4.0, "pre_var_b": 1.0, "pre_shift": 0.0, "running_var_a": a, "running_var_b": b}
    (one,) = findings("modes-disagree", edited(two(), wider, **DROPPED))
    assert one.severity == severity
