"""Rules about statistics of other weights, cell by cell."""

from __future__ import annotations

import math

import pytest
from measures.sites import site, some_rows

from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules import Finding
from bnprobe.rules.rule import Evidence
from rules.edited import evidence, findings

ROWS = some_rows(4)


def norms(fits: list[float], unfolded: float = math.nan, like: str = "", direct: bool = True) -> Evidence:
    """Norms a, b, c, ... of a file with these fits; those below .4 may be like another."""
    return evidence(
        *(
            site(
                ROWS,
                name,
                gamma=1.5,
                beta=0,
                neighbours=Neighbours(
                    "relu",
                    "conv",
                    means_fit=fit,
                    means_fit_unfolded=unfolded,
                    fits_like=like * (fit < 0.4),
                    directly_fed=direct,
                ),
            )
            for name, fit in zip("abcdefghij", fits, strict=False)
        )
    )


def told(rule: str, made: Evidence) -> list[tuple[str, str]]:
    return [(one.severity, one.layer) for one in findings(rule, made)]


GOOD = [0.9] * 8


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        ([*GOOD, 0.39], [("warning", "i")]),
        ([*GOOD, 0.4], []),
        ([*GOOD[:5], 0.1], [("warning", "f")]),
        ([*GOOD[:4], 0.1], []),
        ([*GOOD, 0.1, 0.2], [("warning", "i"), ("warning", "j")]),
        ([*GOOD[:7], 0.1, 0.2], []),
        ([*GOOD[:4], *[0.55] * 4, 0.1], [("warning", "i")]),
        ([*GOOD[:4], *[0.54] * 4, 0.1], []),
        ([*GOOD[:5], math.nan, math.nan, 0.1], [("warning", "h")]),
    ],
)
def test_norms_that_do_not_fit_where_others_do(fits: list[float], expected: list[tuple[str, str]]) -> None:
    """Fails if a limit is another, or norms count of which nothing is known."""
    assert told("statistics-misplaced", norms(fits)) == expected


def test_a_norm_that_is_like_another() -> None:
    """Fails if its partner is warned of as well, or a norm that others feed is warned of on its own."""
    assert told("statistics-misplaced", norms([*GOOD, 0.1], like="b")) == [("critical", "i")]
    two = list(findings("statistics-misplaced", norms([*GOOD, 0.1, 0.2], like="b")))
    assert [(one.severity, one.layer) for one in two] == [("critical", "")]
    assert "2 norms hold the running statistics of other norms" in two[0].says
    assert told("statistics-misplaced", norms([*GOOD, 0.1], direct=False)) == []
    assert told("statistics-misplaced", norms([*GOOD, 0.1], like="b", direct=False)) == [("critical", "i")]


@pytest.mark.parametrize(
    ("fits", "unfolded", "fires"),
    [
        ([0.9] * 6, 0.95, True),
        ([0.9] * 5, 0.95, False),
        ([0.9] * 9 + [0.96], 0.95, True),
        ([0.9] * 8 + [0.96] * 2, 0.95, False),
        ([0.9] * 6, 0.909, False),
        ([0.9] * 6, 0.911, True),
        ([0.9] * 6, math.nan, False),
    ],
)
def test_norms_that_fit_better_unfolded(fits: list[float], unfolded: float, fires: bool) -> None:
    """Fails if a limit is another, or norms count that have no γ."""
    found: list[Finding] = list(findings("folded-and-kept", norms(fits, unfolded)))
    assert [one.severity for one in found] == ["critical"] * fires
