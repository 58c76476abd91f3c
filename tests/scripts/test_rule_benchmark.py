"""Faults as people make them, in the demo network: found by their own rule, and gone when the advice is followed."""

from __future__ import annotations

import ast

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

pytest.importorskip("sklearn", reason="the digits of the demo come with scikit-learn")

from rules.firing import NOT_PLANTED

from bnprobe.rules import RULES
from scripts.rule_benchmark.faults import Fault
from scripts.rule_benchmark.planted import FAULTS, MODELS, healthy, tried
from scripts.rule_benchmark.remedies import COLUMNS, by_rule, of_fault
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


def tiny() -> Subject:
    """A network of one norm whose statistics fit its images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4)
    )
    model[1].weight.data.uniform_(0.5, 1.5)
    model[1].momentum = None
    pixels = torch.rand(80, 1, 8, 8)
    model((pixels - 0.3) / 0.35)
    training = TensorDataset((pixels - 0.3) / 0.35, torch.arange(80) % 4)
    return Subject("tiny", lambda: model, model.eval(), pixels, training, (0.3,), (0.35,))


def test_the_remedy_of_a_fault_is_carried_out_on_both_networks():
    """Fails if the finding stays, the accuracy is not that of the healthy decisions, or the healthy network is left out."""
    fault = Fault("another eps", "tiny", "variance-below-eps", "model[1].eps = 1e3")
    row = of_fault(tiny(), fault)
    assert row["fate"] == "gone"
    assert row["edits"] == "SetAttribute"
    assert row["edits"] in {kind.__name__ for rule in RULES if rule.id == fault.rule for kind in rule.edits}
    assert row["accuracy_before"] < row["accuracy_after"] == 1
    assert row["changes_outputs"] > 0.1
    assert row["healthy_changes_outputs"] == 0, "it has this eps already"
    assert row["n"] == 80


def test_remedies_are_summed_by_rule():
    """Fails if a remedy that leaves the finding, or is not tried, counts as one that works."""
    numbers = {
        "changes_outputs": 0.5,
        "accuracy_before": 0.2,
        "accuracy_after": 0.9,
        "healthy_agreement": 1.0,
    }
    rows = [
        {"rule": "a", "fate": "gone", "edits": "Swap", **numbers},
        {"rule": "a", "fate": "remains", "edits": "Swap", **numbers, "changes_outputs": 0.7},
        {"rule": "b", "fate": "not tried", "why": "it takes training"},
    ]
    lines = by_rule(pd.DataFrame(rows, columns=list(COLUMNS)))
    assert "| a | Swap | 2 of 2 | 1 | 60.0% | 20.0% → 90.0% |  | 100.0% |" in lines
    assert "| b | | 0 of 1 | | it takes training | | | |" in lines


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


def test_a_rule_has_a_fault_or_stands_among_those_without():
    """Fails if a rule lands without a fault as people make it, or one that has one is still said to have none."""
    assert {rule.id for rule in RULES} - {fault.rule for fault in FAULTS} == NOT_PLANTED
