"""Updates, momentum and young statistics: each condition on its own, at and beside its limit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bnprobe.recording.names import SHIFTED
from bnprobe.rules import updates
from bnprobe.rules.edits import TakeOutInitial
from bnprobe.rules.updates import SURE, _slope, _taken_out
from rules.edited import edited, edited_rows, evidence, findings, healthy

LIMITS = evidence().limits

TWICE = {"mode": "train", "n_calls": 4, "n_updates": 8, "momentum": 0.1}


@pytest.mark.parametrize(
    ("cells", "twice"),
    [
        ({}, True),
        ({"n_updates": 6}, True),
        ({"n_updates": 5}, False),
        ({"n_updates": 0}, False),
        ({"n_updates": math.nan}, False),
        ({"mode": "eval"}, False),
        ({"n_calls": 1, "n_updates": 2}, True),
        ({"n_calls": 1, "n_updates": 1}, False),
    ],
)
def test_more_than_one_update_per_call(cells: dict[str, Any], twice: bool) -> None:
    """Fails if one and a half is not the limit, or calls in eval mode count."""
    found = findings("updated-twice", edited_rows({**TWICE, "n_updates": 4}, {**TWICE, **cells}))
    assert [one.layer for one in found] == (["b"] if twice else [])


@pytest.mark.parametrize(
    ("momentum", "acts"),
    [
        (0.1, ", so momentum 0.1 acts as 0.19."),
        (0.5, ", so momentum 0.5 acts as 0.75."),
        (0.0, "."),
        (1.0, "."),
        (math.nan, "."),
    ],
)
def test_what_a_momentum_acts_as(momentum: float, acts: str) -> None:
    """Fails if 1 − (1 − m)^k is another number, or is told where nothing is averaged."""
    (found,) = findings("updated-twice", edited_rows({**TWICE, "momentum": momentum}))
    assert found.because.endswith(f"num_batches_tracked grew by 8, 2 per call (threshold 1.5){acts}")


MOMENTUM = {
    "n_calls": 3,
    "affine_by": "running",
    "n_batches_tracked": 40.0,
    "normalized_by": "batch",
    "n_calls_learning": 3,
}


def said(**cells: Any) -> str:
    """The first word of what is said of a momentum; "" for nothing."""
    found = findings("momentum-odd", edited_rows({**MOMENTUM, "momentum": 0.1, "verdict": "", **cells}))
    return found[0].says if found else ""


ZERO, HIGH, NONE = "Momentum is 0", "Momentum is so high", "The running statistics average over all"


@pytest.mark.parametrize(
    ("cells", "starts"),
    [
        ({}, ""),
        ({"momentum": 0.0}, ZERO),
        ({"momentum": 0.0, "normalized_by": "both"}, ZERO),
        ({"momentum": 0.0, "normalized_by": "running"}, ""),
        ({"momentum": 1e-3}, ""),
        ({"momentum": LIMITS.high_momentum}, HIGH),
        ({"momentum": LIMITS.high_momentum - 1e-6}, ""),
        ({"momentum": LIMITS.high_momentum, "normalized_by": "running", "n_calls_learning": 0}, HIGH),
        ({"momentum": math.nan}, NONE),
        ({"momentum": math.nan, "normalized_by": "both"}, NONE),
        ({"momentum": math.nan, "n_calls_learning": 1}, NONE),
        ({"momentum": math.nan, "n_calls_learning": 0}, ""),
        ({"momentum": math.nan, "normalized_by": "running"}, ""),
        ({"momentum": math.nan, "n_calls_learning": 0, "verdict": next(iter(SHIFTED))}, NONE),
        ({"momentum": 0.0, "n_calls": 0}, ""),
        ({"momentum": 0.0, "affine_by": "observed"}, ""),
        ({"momentum": 0.0, "n_batches_tracked": math.nan}, ""),
    ],
)
def test_a_momentum_that_is_odd(cells: dict[str, Any], starts: str) -> None:
    """Fails if a condition is not asked, a limit is elsewhere, or what is not learning is told of."""
    words = said(**cells)
    assert words.startswith(starts)
    assert bool(words) is bool(starts)


@pytest.mark.parametrize(
    ("momentum", "batches", "other"),
    [
        (0.9, "1.22 batches", 0.1),
        (0.8, "1.5 batches", 0.2),
        (0.79, "1.53 batches", 0.1),
        (0.99, "1.02 batches", 0.01),
        (1.0, "1 batch", 0.1),
    ],
)
def test_a_momentum_of_the_other_convention(momentum: float, batches: str, other: float) -> None:
    """Fails if (2 − m)/m batches are others, or 1 − m is advised where nobody meant it."""
    (found,) = findings("momentum-odd", edited_rows({**MOMENTUM, "momentum": momentum}))
    assert f"(2 − m)/m = {batches} " in found.because
    assert f".momentum = {other:g}`" in found.do
    assert ("here" in found.because) is (momentum not in (0.79, 1.0))


def test_the_slope_is_in_running_deviations_and_its_error_of_those_known() -> None:
    """Fails if a channel counts by its unit, or an error that is not known spoils the others."""
    seen, mean, var = np.array([1.0, -4.0, 3.0]), np.array([0.5, -1.0, 3.0]), np.array([1.0, 4.0, 9.0])
    error = np.array([0.1, np.nan, 0.3])
    x, y = seen / np.sqrt(var), mean / np.sqrt(var)
    slope, found = _slope(seen, mean, var, error)
    assert slope == pytest.approx((x @ y) / (x @ x))
    assert found == pytest.approx(np.sqrt((x[0] * 0.1) ** 2 + (x[2] * 0.3) ** 2) / (x @ x))


def young(
    share: float = 0.41, error: float = 0.01, channels: dict[str, Any] | None = None, **row: Any
) -> bool:
    """Whether statistics are told to be young that were updated five times, and are this share of what is measured."""
    seen = [2.0, -3.0, 4.0]
    cells = {
        "pre_mean": seen,
        "running_mean": [share * v for v in seen],
        "running_var": 1.0,
        "shift_se": error,
        "gamma": [0.5, 2.0, 3.0],
        **(channels or {}),
    }
    facts = {"n_batches_tracked": 5, "momentum": 0.1, "mode": "eval", **row}
    return bool(findings("statistics-young", edited(evidence(), cells, **facts)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, True),
        ({"mode": "train"}, False),
        ({"n_batches_tracked": 0}, False),
        ({"n_batches_tracked": 1, "share": 0.1}, True),
        ({"momentum": 0.0}, False),
        ({"momentum": 1.0}, False),
        # half of the initial value, with its sign turned over, twice: 0.25, of which nothing is an average
        ({"momentum": 1.5, "n_batches_tracked": 2, "share": 0.75}, False),
        ({"momentum": math.nan}, False),
        # 0.9^k is left
        (
            {"n_batches_tracked": math.floor(math.log(LIMITS.initial_weight) / math.log(0.9)), "share": 0.9},
            True,
        ),
        (
            {"n_batches_tracked": math.ceil(math.log(LIMITS.initial_weight) / math.log(0.9)), "share": 0.9},
            False,
        ),
        # nearer to what is left than to the whole: 0.41 and 1
        ({"share": 0.70}, True),
        ({"share": 0.71}, False),
        ({"share": 0.0}, False),
        ({"channels": {"running_var": [1.0, math.nan, 1.0]}}, True),
        ({"channels": {"running_var": math.nan}}, False),
        ({"channels": {"pre_mean": math.nan}}, False),
        ({"channels": {"running_var": 0.0}}, False),
    ],
)
def test_statistics_that_are_young(given: dict[str, Any], told: bool) -> None:
    """Fails if a condition is not asked, or a limit is elsewhere."""
    assert young(**given) is told


@pytest.mark.parametrize(("error", "told"), [(0.5 / SURE, False), (0.499 / SURE, True)])
def test_means_fall_short_by_more_than_their_error(
    monkeypatch: pytest.MonkeyPatch, error: float, told: bool
) -> None:
    """Fails if three standard errors exactly are beyond chance: half of the measured means are missing."""
    assert SURE * (0.5 / SURE) == 1 - 0.5
    monkeypatch.setattr(updates, "_slope", lambda *_: (0.5, error))
    assert young() is told


def test_what_is_left_is_taken_out_of_every_norm_that_has_a_part_of_it() -> None:
    """Fails if one batch is none, or a norm without batches, without momentum or with one of 1 has a rest."""
    rows = edited_rows(
        {"n_batches_tracked": 1, "momentum": 0.25},
        {"n_batches_tracked": 2, "momentum": 0.5},
        {"n_batches_tracked": 0, "momentum": 0.5},
        {"n_batches_tracked": 2, "momentum": 1.0},
        {"n_batches_tracked": 2, "momentum": math.nan},
        {"n_batches_tracked": 2, "momentum": 0.5, "call": 1},
    )
    assert _taken_out(rows) == (TakeOutInitial("a", 0.75), TakeOutInitial("b", 0.25))


def test_updates_are_those_of_a_module_over_all_of_its_calls() -> None:
    """Fails if the count at one call is that of the norm: 8 updates in four calls are twice as many, 4 are not."""
    base = evidence(healthy("a"), healthy("a", call=1))
    for at, n in enumerate((8, 4)):
        base = edited(base, at=at, mode="train", n_calls=2, n_updates=n, momentum=0.1)
    (found,) = findings("updated-twice", base)
    assert "grew by 8, 2 per call" in found.because


def test_norms_that_are_updated_twice_are_told_in_order_of_execution() -> None:
    """Fails if they are sorted by name, or one that was never called is among them."""
    base = evidence(*map(healthy, "cab"))
    for at, (calls, n) in enumerate(((4, 8), (0, 0), (4, 8))):
        base = edited(base, at=at, mode="train", n_calls=calls, n_updates=n, momentum=0.1)
    assert [one.layer for one in findings("updated-twice", base)] == ["c", "b"]
