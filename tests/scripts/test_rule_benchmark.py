"""Faults as people make them, in the demo network: found by their own rule, and gone when the advice is followed."""

from __future__ import annotations

import ast
import re

import pytest

pytest.importorskip("sklearn", reason="the digits of the demo come with scikit-learn")

from bnprobe.rules import RULES
from scripts.rule_benchmark.planted import FAULTS, MODELS, healthy, tried
from scripts.rule_benchmark.subjects import Subject, of_demo

DEMO = [fault for fault in FAULTS if fault.subject == "demo"]


@pytest.fixture(scope="module")
def demo() -> Subject:
    return of_demo()


def test_the_healthy_network_is_left_in_peace(demo):
    """Fails if a rule fires at warning or above on a network that has nothing."""
    found, fine = healthy(demo)
    assert fine
    assert found.empty


@pytest.mark.parametrize("fault", DEMO, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_and_the_advice_removes_it(demo, fault):
    """Fails if its rule is silent, three others speak, or the code in the advice does not run or does not help."""
    outcome = tried(demo, fault)
    assert not outcome.misses, outcome


def test_the_list_is_large_and_its_rules_exist():
    """Fails if faults are taken out, a rule is misspelt, or a healthy model goes untested."""
    assert len(FAULTS) >= 40
    assert {fault.rule for fault in FAULTS} <= {rule.id for rule in RULES}
    assert {fault.subject for fault in FAULTS} == set(MODELS)
    assert sum(fault.held_out for fault in FAULTS) >= 10
    assert len({(fault.name, fault.subject, fault.rule) for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.subject}, {fault.name}")
def test_the_wrong_lines_are_python(fault):
    """Fails if what the table shows as source is not source."""
    ast.parse(fault.code)


def test_rules_that_no_fault_is_planted_for_are_notes_or_of_data():
    """Fails if a rule lands without a fault as people make it."""
    without = {rule.id for rule in RULES} - {fault.rule for fault in FAULTS}
    assert without == {
        "batch-normalized",
        "bias-redundant",
        "few-images",
        "more-than-a-norm",
        "identity-violated",
        "tensors-empty",
        # of home-made norms, of backward passes and of steps of training: tests/probe/calls/test_alternatives.py,
        # tests/probe/backward/test_nonfinite.py, tests/rules/test_frozen_parts.py and test_precision.py plant these
        *("digits-lost", "rows-zero", "rows-constant", "outputs-saturated"),
        *("gradient-not-finite", "updates-below-step"),
        # of data in order and of copies: tests/rules/test_groups.py
        "samples-alike",
        # of networks that no subject here is: the cases of real users have them
        *("batches-of-one-class", "instance-norm-stored"),
        *("learning-in-eval", "statistics-not-updated", "positions-as-channels", "vectors-swapped"),
    }
    assert all(re.fullmatch(r"[a-z-]+", rule) for rule in without)
