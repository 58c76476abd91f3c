"""What several rules ask of a row: whether a norm is frozen, or its running statistics have settled."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from bnprobe.rules.rule import frozen, settled
from rules.edited import evidence

LIMITS = evidence().limits
KEPT = {"frozen": 1.0, "class_name": "BatchNorm2d", "normalized_by": "running"}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, True),
        ({"frozen": 0.0}, False),
        ({"frozen": math.nan}, False),
        ({"frozen": 0.0, "class_name": "FrozenBatchNorm2d"}, True),
        ({"frozen": 0.0, "class_name": "FrozenBatchNorm2d", "normalized_by": "batch"}, False),
        ({"normalized_by": "batch"}, False),
        ({"normalized_by": "both"}, False),
    ],
)
def test_a_norm_that_is_kept_as_it_is(cells: dict[str, Any], expected: bool) -> None:
    """Fails if only classes are frozen, or one that follows its batches is."""
    assert frozen(pd.Series({**KEPT, **cells})) is expected


@pytest.mark.parametrize(
    ("mode", "left", "expected"),
    [
        ("eval", 0.0, True),
        ("eval", math.nextafter(LIMITS.initial_weight, 0), True),
        ("eval", LIMITS.initial_weight, False),
        ("eval", math.nan, False),
        ("train", 0.0, False),
        ("mixed", 0.0, False),
    ],
)
def test_running_statistics_that_have_settled(mode: str, left: float, expected: bool) -> None:
    """Fails if the threshold is next to nothing, or statistics that are not in use have settled."""
    assert settled(pd.Series({"mode": mode, "initial_weight": left}), LIMITS) is expected
