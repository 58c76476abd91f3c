"""Single channels that are off: which statistic is told, and whether the rest is near."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from measures.sites import site

from bnprobe.recording.names import SAME, SHIFTED
from bnprobe.rules.single_channels import _is_far, _number, _others_match
from rules.edited import edited, evidence, findings, frame
from rules.test_single_channels import ROWS, USUAL, stored

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


TOP, FAR = LIMITS.variance_ratio, LIMITS.shift


@pytest.mark.parametrize(
    ("shift", "ratio", "far"),
    [
        (0.0, 1.0, False),
        (FAR, 1.0, False),
        (math.nextafter(FAR, 9), 1.0, True),
        (0.0, TOP, False),
        (0.0, math.nextafter(TOP, 9), True),
        (0.0, 1 / TOP, False),
        (0.0, math.nextafter(1 / TOP, 0), True),
        (0.0, math.nan, True),
        (math.nan, 1.0, False),
    ],
)
def test_a_norm_that_is_far_as_a_whole(shift: float, ratio: float, far: bool) -> None:
    """Fails if one of mean and variance does not suffice, a limit is beyond itself, or less variance is none."""
    row = pd.Series({"shift_rms": shift, "var_ratio_median": ratio})
    assert _is_far(row, LIMITS) is far


AWAY = {"verdict": SHIFTED[0], "shift_rms": 9.0}


@pytest.mark.parametrize(
    ("first", "second", "upset"),
    [
        (AWAY, AWAY, "at a:"),
        ({**AWAY, "shift_rms": 0.0}, AWAY, "at b:"),
        # a mismatch that is not significant, or is significant but small, upsets nothing
        ({**AWAY, "verdict": SAME}, {**AWAY, "verdict": SAME}, ""),
        ({**AWAY, "shift_rms": 0.0}, {**AWAY, "shift_rms": 0.0}, ""),
    ],
)
def test_the_first_norm_that_is_far_off_is_named(
    first: dict[str, float], second: dict[str, float], upset: str
) -> None:
    """Fails if a later one is, or either a verdict or a distance is enough."""
    base = evidence(*(site(ROWS, name, gamma=1.5, beta=0.1, **stored()) for name in "abc"))
    fits = {"normalized_by": "running", "var_ratio_median": 1.0}
    base = edited(edited(base, USUAL, **fits, **first), USUAL, at=1, **fits, **second)
    single = {**USUAL, "shift": [5.0] + [0.0] * 39}
    base = edited(base, single, at=2, **fits, shift_rms=0.0, verdict=SAME)
    (found,) = findings("channels-shifted", base)
    assert found.layer == "c"
    assert found.do.startswith(
        f"Inputs already differ {upset}" if upset else "The data suit the other channels"
    )
