"""What came of a remedy in words: shares and signs at and beside the limits of each sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.rules.tried import CHANGED, GONE, REMAINS, Tried, _percent, not_tried, of_all

DONE: dict[str, Any] = {"n": 1200, "largest_change": 0.5, "largest_relative": 0.25}


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.0, "0%"),
        (-0.5, "0%"),
        (1e-9, "0.001%"),
        (2e-5, "0.002%"),
        (0.00099, "0.1%"),
        (0.001, "0.1%"),
        (0.0014, "0.1%"),
        (0.0994, "9.9%"),
        (0.0995, "10%"),
        (math.nextafter(0.0995, 0), "10%"),  # times 100 exactly 9.95
        (0.25, "25%"),
        (12.5, "1,250%"),
    ],
)
def test_a_share_in_percent(share: float, says: str) -> None:
    """Fails if a small share is told as none, a negative one as its size, or digits change elsewhere."""
    assert _percent(share) == says


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({}, "Tried: finding gone; outputs change by at most 25% on 1,200 samples."),
        ({"n": 1}, "Tried: finding gone; outputs change by at most 25% on 1 sample."),
        ({"largest_change": 0.0}, "Tried: finding gone; outputs stay, bit for bit, on 1,200 samples."),
        (
            {"largest_relative": math.inf},
            "Tried: finding gone; outputs that are NaN or infinite, before or after, on 1,200 samples.",
        ),
        ({"agreement": 1.0}, "Tried: finding gone; outputs change by at most 25% on 1,200 samples."),
        (
            {"agreement": 0.98},
            "Tried: finding gone; outputs change by at most 25% on 1,200 samples; 2.0% of decisions change.",
        ),
        (
            {"explains": 0.9},
            "Tried: finding gone, and with it 90% of the discrepancy; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"explains": -0.3},
            "Tried: finding gone, and with it 0% of the discrepancy; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"fate": REMAINS},
            "Tried: the finding remains; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"fate": CHANGED},
            "Tried: the finding is still there, in other numbers; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"fate": REMAINS, "explains": 0.9},
            "Tried: the finding remains, without 90% of the discrepancy; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"fate": REMAINS, "explains": 0.01},
            "Tried: the finding remains, so this is not the cause; outputs change by at most 25% on 1,200 samples.",
        ),
        (
            {"brings": ("a", "b")},
            "Tried: finding gone; outputs change by at most 25% on 1,200 samples; new findings: a, b.",
        ),
    ],
)
def test_what_came_of_a_remedy(cells: dict[str, Any], says: str) -> None:
    """Fails if a number is told of another quantity, or what did not change is told."""
    assert str(Tried(**{"fate": GONE, **DONE, **cells})) == says


@pytest.mark.parametrize(
    ("metric", "numbers", "says"),
    [
        ("accuracy", (0.5, 0.75, 0.1, 0.4), "accuracy 50.0 → 75.0% (+10.0 to +40.0, 95% interval)"),
        ("accuracy", (0.5, 0.5, 0.0, 0.0), "accuracy stays 50.0%"),
        ("score", (0.5, 0.25, -0.4, -0.1), "score 0.5 → 0.25 (-0.4 to -0.1, 95% interval)"),
        ("score", (0.5, 0.5, 0.0, 0.0), "score stays 0.5"),
        ("score", (0.5, 0.75, 0.0, 0.4), "score 0.5 → 0.75 (+0 to +0.4, 95% interval)"),
    ],
)
def test_what_a_metric_says(metric: str, numbers: tuple[float, ...], says: str) -> None:
    """Fails if shares are not in percent, or one end of the interval at 0 is no change."""
    before, after, low, high = numbers
    found = Tried(GONE, metric=metric, before=before, after=after, low=low, high=high, **DONE)
    assert str(found).endswith(f"; {says}.")


def test_a_cause_that_was_undone_in_vain_is_taken_back() -> None:
    """Fails if what helped a little is refuted, or a finding without a cause is."""
    says = "The inputs do not match: they are too large."
    kept = Tried(REMAINS, explains=0.9, **DONE)
    assert kept.corrected(says) == says
    assert Tried(REMAINS, **DONE).corrected(says) == says
    assert Tried(REMAINS, explains=0.0, **DONE).corrected(says) == (
        "The inputs do not match, for another reason than that which fits best (they are too large): undoing that does not "
        "help."
    )


def test_several_places_in_a_sentence() -> None:
    """Fails if what was not tried decides the sentence, or places that say the same are counted."""
    gone, left = Tried(GONE, **DONE), Tried(REMAINS, **DONE)
    assert of_all([gone]) == str(gone)
    assert of_all([gone, gone]) == str(gone)
    assert of_all([not_tried("no"), not_tried("no")]) == "Not tried: no."
    rest = "outputs change by at most 25% on 1,200 samples."
    assert of_all([left, gone, gone]) == f"Tried: finding gone at 2 of 3 places; {rest}"
    assert of_all([not_tried("no"), gone]) == f"Tried: finding gone at 1 of 2 places; {rest}"
