"""Rules about gains, cell by cell: shares of norms, and gains beside others of their norm."""

from __future__ import annotations

from typing import Any

import pytest
from measures.sites import site, some_rows

from bnprobe.rules import Finding
from bnprobe.rules.rule import Evidence
from bnprobe.rules.values import DECAYED
from rules.edited import edited, evidence, findings

ROWS = some_rows(20, n_channels=4)
LEARNED = {"kind": "layer_norm", "gamma_abs_median": 0.8, "gamma_negative": 0.0, "call": 0}


def norms(*rows: dict[str, Any]) -> Evidence:
    """Layer norms a, b, c, ... with these cells."""
    base = evidence(
        *(site(ROWS, name, "layer_norm", gamma=[0.8, 0.9, 1.1, 1.2]) for name in "abcdef"[: len(rows)])
    )
    for i, row in enumerate(rows):
        base = edited(base, at=i, **{**LEARNED, **row})
    return base


NEGATIVE, ALL_ZERO, SMALL = {"gamma_negative": 0.3}, {"gamma_abs_median": 0.0}, {"gamma_abs_median": 0.04}


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        ([NEGATIVE, NEGATIVE, {}], "in 2 of 3 norms (up to 30%)"),
        ([NEGATIVE, {"gamma_negative": 0.45}, {}], "in 2 of 3 norms (up to 45%)"),
        ([NEGATIVE, {}, {}], None),
        ([NEGATIVE, NEGATIVE], None),
        ([NEGATIVE, NEGATIVE, {}, {}], None),
        ([{"gamma_negative": 0.2}, {"gamma_negative": 0.2}, NEGATIVE], None),
        ([NEGATIVE, NEGATIVE, ALL_ZERO], None),
        ([NEGATIVE, NEGATIVE, {"kind": "batch_norm"}], None),
        ([NEGATIVE, NEGATIVE, {"kind": "rms_norm"}], "in 2 of 3 norms"),
        ([NEGATIVE, NEGATIVE, {"call": 1}], None),
    ],
)
def test_gains_that_were_stored_without_their_one(rows: list[dict[str, Any]], because: str | None) -> None:
    """Fails if two norms, or half of the norms, are enough, or a norm counts whose γ says nothing."""
    found = findings("gain-convention", norms(*rows))
    assert [(one.severity, one.layer) for one in found] == ([("critical", "a")] if because else [])
    for one in found:
        assert f"more than 20% of γ are negative {because}" in one.because


@pytest.mark.parametrize(
    ("rows", "because"),
    [
        ([SMALL, {"gamma_abs_median": 0.02}, {}], "in 2 of 3 norms (least 0.02, at b)."),
        ([SMALL, SMALL, {}], "in 2 of 3 norms (least 0.04, at a)."),
        ([SMALL, {}, {}], None),
        ([SMALL, SMALL], None),
        ([SMALL, SMALL, {}, {}], None),
        ([{**SMALL, **NEGATIVE}, {**SMALL, **NEGATIVE}, {}], None),
        ([SMALL, {"gamma_abs_median": DECAYED}, {}], None),
        ([SMALL, {"gamma_abs_median": 0.0999}, {}], "in 2 of 3 norms (least 0.04, at a)."),
    ],
)
def test_gains_of_the_whole_network_that_are_small(rows: list[dict[str, Any]], because: str | None) -> None:
    """Fails if half of the norms are enough, the least is another's, or a norm stored without its 1 is told twice."""
    found = findings("gains-decayed", norms(*rows))
    assert [(one.severity, one.layer) for one in found] == ([("info", "a")] if because else [])
    for one in found:
        assert one.because.endswith(str(because))


def decayed(gamma: list[float], **row: Any) -> list[Finding]:
    return findings("gains-decayed", edited(norms({}), {"gamma": gamma}, **row))


@pytest.mark.parametrize(
    ("gamma", "channels"),
    [
        ([1e-9, 0.5, 1.0, 2.0], (0,)),
        ([0.5, -1e-9, 1.0, 2.0], (1,)),
        ([1e-6, 0.5, 1.0, 2.0], None),
        ([0.99e-6, 0.5, 1.0, 2.0], (0,)),
        ([1e-9, 1e-9, 1.0, 2.0], None),
        # a gain at the limit is one of the others
        ([1e-9, 1e-6, 1.0, 2.0], (0,)),
        ([1e-9, 1e-9, 1e-9, 1e-9], None),
        ([1e-9, 1.01e-4, 1.01e-4, 1.01e-4], (0,)),
        ([1e-9, 0.99e-4, 0.99e-4, 0.99e-4], None),
    ],
)
def test_single_gains_that_are_nothing(gamma: list[float], channels: tuple[int, ...] | None) -> None:
    """Fails if half of the gains are single ones, or gains count that are small beside small ones."""
    assert [one.channels for one in decayed(gamma)] == ([channels] if channels else [])


def test_what_is_said_of_single_gains() -> None:
    """Fails if a second call is told again, a batch norm is, or the numbers are those of the others."""
    (one,) = decayed([1e-9, 0.5, 1.5, 2.0])
    assert one.because == "|γ| is at most 1e-09 in 1 of 4 channels; half of the others are above 1.5."
    assert decayed([1e-9, 0.5, 1.0, 2.0], call=1) == []
    base = evidence(site(ROWS, "bn", gamma=[1e-9, 0.5, 1.0, 2.0], beta=0.1))
    assert findings("gains-decayed", base) == []


def test_a_gain_at_the_limit_is_one_of_the_others() -> None:
    """Fails if it is left out of their median: of 1e-6, 1 and 2 that is 1."""
    (one,) = decayed([1e-9, 1e-6, 1.0, 2.0])
    assert one.because == "|γ| is at most 1e-09 in 1 of 4 channels; half of the others are above 1."
