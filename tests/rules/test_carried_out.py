"""Which rules' advice can be carried out: every rule says by which edits, or why not."""

from __future__ import annotations

import re

import pytest

from bnprobe.experiments.carry_out import KINDS
from bnprobe.experiments.feeding import _ACTS
from bnprobe.rules import COMPARED, RULES, Rule
from bnprobe.rules.by_hand import TWO_SIDES

EVERY = tuple({rule.id: rule for rule in (*RULES, *COMPARED)}.values())


@pytest.mark.parametrize("rule", EVERY, ids=[rule.id for rule in EVERY])
def test_every_rule_has_edits_or_a_reason_why_not(rule: Rule) -> None:
    """Fails if a rule lands without an edit and without a reason, or with both; the reason ends "Not tried: ..."."""
    assert bool(rule.edits) != bool(rule.by_hand)
    assert set(rule.edits) <= KINDS | set(_ACTS)
    assert not rule.by_hand or re.fullmatch(r"[a-z][^.]{10,}[a-z]", rule.by_hand)


def test_rules_about_two_sides_are_not_carried_out() -> None:
    """Fails if a rule that compares is tried on one model."""
    of_two = {rule.id for rule in COMPARED} - {rule.id for rule in RULES}
    assert {rule.id for rule in EVERY if rule.by_hand == TWO_SIDES} == of_two
