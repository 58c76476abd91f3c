"""Streams of tokens: shares of norms, and limits, exactly where they are."""

from __future__ import annotations

from typing import Any

import pytest

from rules.edited import edited, findings
from rules.of_tokens import ATTENTION, recorded
from rules.test_tokens import of

SCALED = {**ATTENTION, "largest_logit": 40.0, "attention_factor": 16.0}
PLAIN = {**ATTENTION, "largest_logit": 40.0, "attention_factor": 1.0}
SHARP = {**ATTENTION, "attention_factor": 1.0}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ((SCALED,), "its logits are multiplied by 16/√d"),
        ((SCALED, PLAIN), ""),
        ((SCALED, SCALED, PLAIN), "its logits are multiplied by 16/√d"),
        # in half of the layers a factor is no cause: then logits are
        ((SCALED, SHARP), "queries look at next to nothing but one key"),
        ((PLAIN, PLAIN), ""),
    ],
)
def test_a_factor_is_the_cause_in_more_than_half_of_the_layers(rows: tuple[dict[str, Any], ...], says: str):
    """Fails if half of the layers are most of them."""
    base = of(recorded())
    for i, row in enumerate(rows):
        base = edited(base, at=i, **row)
    assert [says in one.says for one in findings("attention-saturates", base)] == [True] * bool(says)
