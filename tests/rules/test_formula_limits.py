"""How serious it is that outputs are not the formula's: what is known of it, and how far they are off."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from bnprobe.rules.formula import _severity
from rules.edited import edited_rows, evidence, findings

LIMITS = evidence().limits
LARGE = LIMITS.large_mismatch
UNKNOWN = {"computes_instead": "", "mismatch_left": math.nan, "mismatch": LARGE, "formula_fits": 0.0}


@pytest.mark.parametrize(
    ("cells", "severity"),
    [
        ({}, "warning"),
        ({"mismatch": math.nextafter(LARGE, 0)}, "info"),
        ({"mismatch": math.inf}, "info"),
        ({"mismatch": math.nan}, "info"),
        ({"formula_fits": 1.0}, "info"),
        ({"formula_fits": math.nan}, "info"),
        # where the rest follows the formula, whatever is left, nothing else is computed
        ({"mismatch_left": 0.0}, "info"),
        ({"mismatch_left": 0.5}, "info"),
        ({"computes_instead": "no bias"}, "info"),
        ({"computes_instead": "over channels"}, "warning"),
        ({"computes_instead": "no bias; over channels", "mismatch_left": 0.0}, "warning"),
        ({"computes_instead": "no groups", "mismatch": 0.0}, "warning"),
        ({"computes_instead": "no bias; no weight", "mismatch_left": 0.0}, "info"),
    ],
)
def test_how_serious_another_formula_is(cells: dict[str, Any], severity: str) -> None:
    """Fails if a small or unknown difference is a warning, or one whose cause is known and harmless."""
    assert _severity(pd.Series({**UNKNOWN, **cells}), LIMITS) == severity


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [
        ("float32", LIMITS.rounding_step),
        ("", LIMITS.rounding_step),
        ("float16", LIMITS.rounding_step_half),
        ("bfloat16", LIMITS.rounding_step_half),
    ],
)
def test_how_coarse_numbers_may_be(dtype: str, limit: float) -> None:
    """Fails if a step at the threshold loses digits, or half precision has that of full."""
    row = {"input_dtype": dtype, "mean_in_sds_max": 9.0}
    steps = ({**row, "rounding_step": limit}, {**row, "rounding_step": math.nextafter(limit, 1)})
    assert [one.layer for one in findings("digits-lost", edited_rows(*steps))] == ["b"]


def test_how_many_outputs_may_stick_at_an_end() -> None:
    """Fails if the threshold is above itself."""
    limit = LIMITS.saturated_outputs
    shares = ({"saturated_outputs": limit}, {"saturated_outputs": math.nextafter(limit, 1)})
    assert [one.layer for one in findings("outputs-saturated", edited_rows(*shares))] == ["b"]
