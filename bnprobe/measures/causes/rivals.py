"""Which of several mistakes of preprocessing may be called the cause: what fits, what fits as well, and what nobody does.

An explanation is a row of `inputs`: `misfit` is what it leaves in units of what images may differ by, `weight` how rare the
mistake is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bnprobe.measures.causes.input_maps import RARE, Mistake
from bnprobe.recording.names import NO_CONSTANTS, NO_PIXELS

OTHER_LIGHT_SAYS = "nothing is wrong and these images are lighter or darker than those of training"
"""What else explains inputs whose mean moved and whose scale did not."""

OTHER_IMAGES_SAYS = "these images have another light or contrast than those of training"
"""What else would explain them, though not as well, where a mistake does."""

NOT_SURELY = 3.2
"""Difference of squared misfits up to which that is said: twice the logarithm of 5, odds of 5 to 1 for errors that are
Gaussian in these units."""

HALF = 0.5
"""Share of the squared discrepancy that a mistake must explain to be named."""

FITS = 2.0
"""In these units: what a mistake may leave, as root of the sum of squares of both."""

CLEAR = 1.5
"""Times what the best mistake leaves that every other one, and none at all, must leave for the best to be certain."""

CLEARLY = 0.4
"""By how much more, too: what nearly nothing leaves is no reason."""

LEAST_GUESSED, FITS_GUESSED = 0.6, 1.0
"""Discrepancy from which, and misfit up to which, a mistake is named by constants nobody gave: of several sets one always
comes near other light or contrast. Exchanged colors need none. The discrepancy also counts where other light explains
nearly as well as a mistake."""


def others(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What may be the cause instead: `also`, `rarer`, and whether the mistake of `row` is `certain`."""
    rivals = [other for other in rows if other is not row and is_rival(row, other)]
    rarer = [other for other in rows if is_rarer(row, other) and other not in rivals]
    also = _names(
        row["also"],
        *(name for other in rivals for name in (other["mistake"], other["also"])),
        OTHER_LIGHT_SAYS if row["light"] else "",
        but=(row["mistake"],),
    )
    return {
        "also": also,
        "certain": row["constants"] not in (NO_CONSTANTS, NO_PIXELS) and not rivals and not row["light"],
        "rarer": _names(
            *(other["mistake"] for other in rarer),
            OTHER_IMAGES_SAYS if row["images"] and not row["light"] else "",
            but=(row["mistake"], *also.split("; ")),
        ),
        "n_rivals": len(rivals),
    }


def _names(*lists: str, but: tuple[str, ...]) -> str:
    """Names separated by "; ", each once, `but` those that are said already."""
    names = dict.fromkeys(name for names in lists for name in names.split("; ") if name)
    return "; ".join(name for name in names if name not in but)


def best_of_each(found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, each mistake once: with several constants it may explain the inputs more than once."""
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(found, key=badness):
        best.setdefault(row["mistake"], row)
    return list(best.values())


def badness(row: dict[str, Any]) -> float:
    """What an explanation leaves; that of a mistake nobody makes by accident counts several times."""
    return float(row["misfit"] * row["weight"])


def is_rival(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether another mistake may be the cause as well: one nobody makes by accident only where it fits clearly better."""
    if other["weight"] > row["weight"]:
        return is_clear(other["misfit"], row["misfit"])
    return not is_clear(badness(row), badness(other))


def is_rarer(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a mistake that nobody makes by accident would look the same."""
    return bool(other["weight"] >= RARE > row["weight"] and not is_clear(row["misfit"], other["misfit"]))


def is_clear(misfit: float, other: float) -> bool:
    """Whether one explanation leaves clearly less than another."""
    return other >= max(CLEAR * misfit, misfit + CLEARLY)


def fits_well(row: dict[str, Any], mistake: Mistake) -> bool:
    """Whether a mistake predicts both mean and scale."""
    if row["explains"] < HALF:
        return False
    if row["constants"] == "given":
        return bool(row["misfit"] <= FITS)
    known = mistake.exchanged or row["discrepancy"] >= LEAST_GUESSED
    return bool(row["misfit"] <= FITS_GUESSED and known)
