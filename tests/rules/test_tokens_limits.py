"""Streams of tokens: shares of norms, and limits, exactly where they are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rules.edited import edited, findings
from rules.of_tokens import ATTENTION, recorded
from rules.test_tokens import norms, of

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


@pytest.mark.parametrize(
    ("bounds", "logits", "layer", "because"),
    [
        ([1.0, 9.0, 3.0], [], "b", "it is above 2 at 2 of 3 norms"),
        ([2.0, 2.1, math.nan], [], "b", "it is above 2 at 1 of 2 norms"),
        ([2.0, 2.0], [], "", ""),
        # where attention was seen, at one norm or all, what it does is known
        ([9.0, 9.0], [math.nan, 5.0], "", ""),
        ([9.0, 9.0], [5.0, 5.0], "", ""),
    ],
)
def test_what_weights_allow_is_told_at_the_worst_norm(
    bounds: list[float], logits: list[float], layer: str, because: str
):
    """Fails if the threshold is above itself, another norm is named, or logits that were seen do not answer it: in units
    of half the threshold."""
    base = norms(*({"largest_logit": math.nan} for _ in bounds))
    unit = base.limits.qk_bound / 2
    for i, bound in enumerate(bounds):
        base = edited(base, at=i, qk_bound=bound * unit)
    for i, logit in enumerate(logits):
        base = edited(base, at=i, largest_logit=logit)
    found = findings("attention-saturates", base)
    assert [one.layer for one in found] == ([layer] if layer else [])
    for one in found:
        assert because.replace("above 2", f"above {2 * unit:g}") in one.because
