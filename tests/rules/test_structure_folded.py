"""A norm that was folded and left in place is told where others were trained, and where these alone are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rules.edited import edited, edited_rows, findings

NEUTRAL = {"gamma": 1.0, "beta": 0.0, "running_mean": 0.0, "running_var": 1.0, "filter_bias": 0.5}


@pytest.mark.parametrize(
    ("cells", "others", "row", "told"),
    [
        ({}, 0.5, {}, True),
        ({}, [1.0, 1.0, 0.5], {}, True),
        ({}, 1.0, {}, False),
        ({}, 0.0, {}, False),
        ({}, math.nan, {}, False),
        ({"filter_bias": [0.5, 0.0, 0.5]}, 0.5, {}, False),
        ({"filter_bias": [0.5, math.nan, 0.5]}, 0.5, {}, False),
        ({"filter_bias": 0.0}, 0.5, {}, False),
        ({"running_var": 1.1}, 0.5, {}, False),
        ({}, 0.5, {"memory_moved": 0.1}, False),
    ],
)
def test_a_folded_norm_beside_others(
    cells: dict[str, Any], others: Any, row: dict[str, Any], told: bool
) -> None:
    """Fails if initial gains of 0 or 1 are trained, one filter without a bias is one with, or a new norm is folded."""
    found = edited(edited_rows({"memory_moved": 0.0, **row}, {}), {**NEUTRAL, **cells})
    found = edited(found, {"gamma": others, "filter_bias": 0.0}, at=1)
    assert [one.layer for one in findings("norm-folded", found)] == (["a"] if told else [])
