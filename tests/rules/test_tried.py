"""What came of a remedy, in words."""

from __future__ import annotations

from math import nan

import pytest

from bnprobe.rules.tried import Tried, not_tried, of_all

EFFECT = {"n": 240, "largest_change": 2.0, "largest_relative": 0.314, "agreement": 0.9, "kl": 0.1}
ACCURACY = {"metric": "accuracy", "before": 0.715, "after": 0.789, "low": 0.051, "high": 0.096}


@pytest.mark.parametrize(
    ("tried", "says"),
    [
        (
            Tried("gone", **EFFECT, **ACCURACY),
            "Tried: finding gone; outputs change by at most 31% on 240 samples; 10% of decisions change; "
            "accuracy 71.5 → 78.9% (+5.1 to +9.6, 95% interval).",
        ),
        (
            Tried("gone", n=1, largest_change=0.0, largest_relative=0.0, agreement=1.0),
            "Tried: finding gone; outputs stay, bit for bit, on 1 sample.",
        ),
        (
            Tried("remains", **{**EFFECT, "agreement": nan, "largest_relative": 2e-7}, explains=0.1),
            "Tried: the finding remains, so this is not the cause; outputs change by at most 0.001% on 240 samples.",
        ),
        (
            Tried(
                "changed",
                **{**EFFECT, "agreement": 1.0, "largest_relative": 0.025},
                explains=0.9,
                brings=("a", "b"),
            ),
            "Tried: the finding is still there, in other numbers, without 90% of the discrepancy; outputs change by at "
            "most 2.5% on 240 samples; new findings: a, b.",
        ),
        (
            Tried(
                "gone",
                **{**EFFECT, "largest_relative": nan},
                metric="dice",
                before=0.5,
                after=0.5,
                low=0.0,
                high=0.0,
            ),
            "Tried: finding gone; outputs that are NaN or infinite, before or after, on 240 samples; 10% of decisions "
            "change; dice stays 0.5.",
        ),
        (
            Tried("gone", **EFFECT, metric="dice", before=0.5, after=0.75, low=-0.125, high=0.625),
            "Tried: finding gone; outputs change by at most 31% on 240 samples; 10% of decisions change; dice 0.5 → 0.75 "
            "(-0.12 to +0.62, 95% interval).",
        ),
        (not_tried("it takes training"), "Not tried: it takes training."),
    ],
)
def test_a_result_in_a_sentence(tried: Tried, says: str) -> None:
    assert str(tried) == says


def test_several_places_in_one_sentence() -> None:
    """Fails if the fate at one place stands for all."""
    gone, stays = Tried("gone", **EFFECT), Tried("remains", **EFFECT)
    assert of_all([gone, gone]) == str(gone)
    assert of_all([gone, stays, gone]).startswith(
        "Tried: finding gone at 2 of 3 places; outputs change by at most 31%"
    )
    assert of_all([not_tried("x"), gone]).startswith("Tried: finding gone at 1 of 2 places; outputs")


@pytest.mark.parametrize("explains", [0.0, 0.74])
def test_a_cause_whose_undoing_does_not_help_is_taken_back(explains: float) -> None:
    says = "The inputs are not preprocessed as in training: most likely x."
    assert Tried("gone", explains=0.8).corrected(says) == says
    assert Tried("remains").corrected(says) == says
    corrected = Tried("remains", explains=explains).corrected(says)
    assert corrected == (
        "The inputs are not preprocessed as in training, for another reason than that which fits best (most likely x): "
        "undoing that does not help."
    )
