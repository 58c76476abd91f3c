"""Single channels that are off: which statistic is told, and whether the rest is near."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from bnprobe.rules.single_channels import _number, _others_match
from rules.edited import evidence, frame

LIMITS = evidence().limits


@pytest.mark.parametrize(
    ("shift", "scale", "says"),
    [
        (2.0, 1.0, "mean -3.00 running σ"),
        (1.0, 1.0, "mean -3.00 running σ"),
        (1.0, 2.0, "std 5 times the running one"),
    ],
)
def test_the_statistic_that_is_farther_off_is_told(shift: float, scale: float, says: str) -> None:
    """Fails if the nearer one is, or neither of two that are as far."""
    worst = pd.Series({"shift": -3.0, "scale_ratio": 5.0})
    assert _number(worst, pd.Series({"shift": shift, "scale": scale}), LIMITS).startswith(says)


@pytest.mark.parametrize(
    ("shift", "ratio", "near"),
    [
        ([0.0, 0.1, -0.1], [1.0, 1.1, 0.9], True),
        ([LIMITS.shift * 0.49, -LIMITS.shift * 0.49, 9.0], [1.0] * 3, True),
        ([LIMITS.shift * 0.51, -LIMITS.shift * 0.51, 0.0], [1.0] * 3, False),
        (
            [0.0] * 3,
            [math.sqrt(LIMITS.variance_ratio) * 0.99, 1 / math.sqrt(LIMITS.variance_ratio) / 0.99, 1.0],
            True,
        ),
        (
            [0.0] * 3,
            [math.sqrt(LIMITS.variance_ratio) * 1.01, 1 / math.sqrt(LIMITS.variance_ratio) / 1.01, 1.0],
            False,
        ),
    ],
)
def test_the_rest_is_near(shift: list[float], ratio: list[float], near: bool) -> None:
    """Fails if a sign makes channels near, the average decides, or a spread to one side only counts."""
    assert _others_match(frame(shift=shift, scale_ratio=ratio), LIMITS, new=False) == near
