"""What came of a remedy, in words."""

from __future__ import annotations

from math import nan
from typing import Any

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


@pytest.mark.parametrize(
    ("relative", "words"),
    [
        (0.0, "at most 0%"),
        (1e-9, "at most 0.001%"),
        (1.04e-5, "at most 0.001%"),
        (0.00099, "at most 0.1%"),
        (0.00104, "at most 0.1%"),
        (0.0105, "at most 1.1%"),
        (0.0994, "at most 9.9%"),
        (0.0996, "at most 10%"),
        (12.345, "at most 1,234%"),
    ],
)
def test_how_changes_are_rounded(relative: float, words: str) -> None:
    """Fails if a small change is told as none, or digits change elsewhere than at a tenth and at ten percent."""
    tried = Tried("gone", n=2, largest_change=1.0, largest_relative=relative)
    assert str(tried) == f"Tried: finding gone; outputs change by {words} on 2 samples."


@pytest.mark.parametrize(
    ("fate", "explains", "words"),
    [
        ("gone", 0.9, "finding gone, and with it 90% of the discrepancy"),
        ("gone", -0.2, "finding gone, and with it 0% of the discrepancy"),
        ("remains", nan, "the finding remains;"),
        ("remains", 0.75, "the finding remains, without 75% of the discrepancy"),
        ("remains", 0.74, "the finding remains, so this is not the cause"),
        ("changed", nan, "the finding is still there, in other numbers;"),
        ("changed", 0.1, "the finding is still there, in other numbers, so this is not the cause"),
    ],
)
def test_a_cause_is_kept_where_three_quarters_go_with_it(fate: str, explains: float, words: str) -> None:
    """Fails if three quarters are not enough, less is, or a finding without a cause refutes one."""
    tried = Tried(fate, n=1, largest_change=1.0, largest_relative=0.5, explains=explains)
    assert words in str(tried)
    refuted = explains < 0.75
    assert tried.refutes is refuted
    says = "They differ: dropout is off."
    corrected = "They differ, for another reason than that which fits best (dropout is off): undoing that does not help."
    assert tried.corrected(says) == (corrected if refuted else says)


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (
            {"metric": "loss", "before": 1.5, "after": 1.25, "low": -0.3, "high": -0.2},
            "loss 1.5 → 1.25 (-0.3 to -0.2, 95% interval)",
        ),
        ({"metric": "loss", "before": 1.5, "after": 1.5, "low": 0.0, "high": 0.0}, "loss stays 1.5"),
        (
            {"metric": "accuracy", "before": 0.5, "after": 0.5, "low": 0.0, "high": 0.0},
            "accuracy stays 50.0%",
        ),
        (
            {"metric": "accuracy", "before": 0.5, "after": 0.505, "low": 0.0, "high": 0.01},
            "accuracy 50.0 → 50.5% (+0.0 to +1.0, 95% interval)",
        ),
    ],
)
def test_what_a_metric_does(metric: dict[str, Any], words: str) -> None:
    """Fails if a share is told as a number, a loss in percent, or a metric that stayed has an interval."""
    tried = Tried("gone", n=1, largest_change=1.0, largest_relative=0.5, **metric)
    assert str(tried).endswith(f"; {words}.")
