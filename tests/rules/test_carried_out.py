"""Which rules' advice can be carried out: every rule says by which edits, or why not."""

from __future__ import annotations

import re

import pytest

from bnprobe.experiments.carry_out import KINDS
from bnprobe.experiments.feeding import _ACTS
from bnprobe.rules import COMPARED, RULES
from bnprobe.rules.carried_out import BY_EDITS, BY_HAND, TWO_SIDES


def test_every_rule_is_in_one_of_both_lists() -> None:
    """Fails if a rule lands without an edit and without a reason, or a list names a rule that there is not."""
    ids = {rule.id for rule in (*RULES, *COMPARED)}
    assert set(BY_EDITS) | set(BY_HAND) == ids
    assert not set(BY_EDITS) & set(BY_HAND)
    compared = {rule.id for rule in COMPARED} - {rule.id for rule in RULES}
    assert {rule for rule, why in BY_HAND.items() if why == TWO_SIDES} == compared


@pytest.mark.parametrize("rule", BY_EDITS)
def test_its_edits_are_known(rule: str) -> None:
    assert BY_EDITS[rule]
    assert set(BY_EDITS[rule]) <= KINDS | set(_ACTS)


@pytest.mark.parametrize("rule", BY_HAND)
def test_a_reason_ends_the_sentence_that_begins_with_not_tried(rule: str) -> None:
    assert re.fullmatch(r"[a-z][^.]{10,}[a-z]", BY_HAND[rule])
