"""Rules about statistics of other weights, cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measures.sites import site, some_rows

from bnprobe.recording.neighbours import Neighbours
from bnprobe.rules import Finding
from bnprobe.rules.rule import Evidence
from rules.edited import evidence, findings

ROWS = some_rows(4)
LAYOUTS = {"t": "transposed", "r": "reshaped"}


def norms(
    fits: list[float],
    unfolded: float = math.nan,
    like: str = "",
    direct: bool = True,
    layouts: str = "",
    negated: float = math.nan,
) -> Evidence:
    """Norms a, b, c, ... of a file with these fits; those below .4 may be like another, and the first ones in a layout, by
    its first letter."""
    named = [LAYOUTS.get(letter, "") for letter in layouts.ljust(len(fits))]
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
                    fits_layout=layout,
                    means_fit_negated=negated,
                ),
            )
            for name, fit, layout in zip("abcdefghij", fits, named, strict=False)
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
        # fewer show it where all others fit well
        ([0.95, 0.95, 0.1], [("warning", "c")]),
        ([0.95, 0.94, 0.1], []),
        ([0.95, 0.1], []),
        ([0.95, 0.95, 0.1, 0.1], [("warning", "c"), ("warning", "d")]),
        ([*[0.95] * 4, 0.9, 0.1], [("warning", "f")]),
        ([0.95, 0.95, 0.54], [("warning", "c")]),
        ([0.95, 0.95, 0.55], []),
        ([*[0.95] * 8, 0.54], [("warning", "i")]),
        ([*[0.95] * 3, 0.1, 0.1, 0.1], [("warning", "d"), ("warning", "e"), ("warning", "f")]),
        # none of three fits
        ([0.39, 0.39, 0.79], [("warning", "")]),
        ([0.4, 0.4, 0.1], []),
        ([0.39, 0.39, 0.8], []),
        ([0.39, 0.39], []),
        ([0.39, 0.39, math.nan], []),
        ([0.1] * 8, [("warning", "")]),
    ],
)
def test_norms_that_do_not_fit_where_others_do(fits: list[float], expected: list[tuple[str, str]]) -> None:
    """Fails if a limit is another, or norms count of which nothing is known."""
    assert told("statistics-misplaced", norms(fits)) == expected


def test_norms_of_which_none_fits_for_a_reason_of_its_own() -> None:
    """Fails if a file in which no norm fits is warned of where means are negated, norms were folded, or others feed them."""
    assert told("statistics-misplaced", norms([0.1] * 4, unfolded=0.79, negated=0.79)) == [("warning", "")]
    assert told("statistics-misplaced", norms([0.1] * 4, negated=0.8)) == []
    assert told("statistics-misplaced", norms([0.1] * 4, unfolded=0.8)) == []
    assert told("statistics-misplaced", norms([0.1] * 4, direct=False)) == []


def test_vectors_in_each_others_place_are_no_other_weights() -> None:
    """Fails if what is stored for running means, and is variances, is said to be of other weights as well."""
    rng = np.random.default_rng(0)
    around = Neighbours("relu", "conv", means_fit=0.1, directly_fed=True)
    sites = [
        site(
            some_rows(n_channels=16), name, gamma=1.0, beta=0.0, running_mean=np.full(16, 2.0),
            running_var=rng.normal(size=16), neighbours=around,
        )
        for name in "abcd"
    ]  # fmt: skip
    assert told("statistics-misplaced", evidence(*sites)) == []
    assert len(told("vectors-swapped", evidence(*sites))) == 1


@pytest.mark.parametrize(
    ("layouts", "expected"),
    [
        ("t", [("critical", "a")]),
        ("tt", [("critical", "")]),
        ("rt", [("critical", "a"), ("critical", "b")]),
        ("rtt", [("critical", "a"), ("critical", "")]),
        ("", []),
    ],
)
def test_norms_whose_weights_fit_in_another_layout(layouts: str, expected: list[tuple[str, str]]) -> None:
    """Fails if layouts share a finding, one norm among many is not enough, or the same norm is warned of once more."""
    fits = [0.1] * len(layouts) + [0.9] * 6
    assert told("statistics-misplaced", norms(fits, layouts=layouts)) == expected


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
