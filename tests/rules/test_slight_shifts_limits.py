"""A slight mismatch: which norms are judged at all, and the first of them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bnprobe.recording.names import NOT_JUDGED, SAME
from rules.edited import edited_rows, evidence, findings
from rules.test_slight_shifts import OFF

LIMIT = evidence().limits.slight
NOT = next(iter(NOT_JUDGED))
NEAR, FAR = {"verdict": SAME, "discrepancy": 0.05}, {"verdict": SAME, "discrepancy": 0.2}


@pytest.mark.parametrize(
    ("rows", "layer"),
    [
        ((NEAR, OFF), "b"),
        ((FAR, OFF), ""),
        # the first that is judged, and whose discrepancy is known, says whether inputs are right
        (({**NEAR, "verdict": NOT}, FAR, OFF), ""),
        (({**FAR, "verdict": NOT}, NEAR, OFF), "c"),
        (({**NEAR, "discrepancy": math.nan}, NEAR, OFF), "c"),
        (({**NEAR, "discrepancy": math.nan}, FAR, OFF), ""),
        (({**NEAR, "discrepancy": LIMIT / 2}, OFF), ""),
        (({**NEAR, "discrepancy": math.nextafter(LIMIT / 2, 0)}, OFF), "b"),
        (({**NEAR, "verdict": NOT}, {**NEAR, "verdict": NOT}), ""),
        ((NEAR, {**OFF, "discrepancy": LIMIT}), ""),
    ],
)
def test_the_first_norm_that_is_judged_must_match(rows: tuple[dict[str, Any], ...], layer: str) -> None:
    """Fails if a norm that is not judged, or of which nothing is known, is taken for the first."""
    assert [one.layer for one in findings("data-shifted", edited_rows(*rows))] == ([layer] if layer else [])
