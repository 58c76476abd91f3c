"""The code of every rule's advice is run: by a planted fault, by a small network here, or it is code for another place."""

from __future__ import annotations

import re

import pandas as pd
import pytest

pytest.importorskip("torchvision", reason="a trial has its frozen norms")

from rules.firing import all_found

from scripts.rule_benchmark.code_remedies import CHANGES, by_rule, of_trial
from scripts.rule_benchmark.code_trials import TRIALS, Trial, trained
from scripts.rule_benchmark.faults import FAULTS

NOT_OF_A_MODEL = {
    # of the user's own forward: names in it are theirs
    *("positions-as-channels", "square-overflows"),
    # it looks, and changes nothing; or is for data at hand
    *("gradient-not-finite", "samples-alike"),
    # the norm learns only in steps of training under autocast: tests/rules/test_precision.py
    "updates-below-step",
    # of a table that was tried: tests/experiments/invariances
    "samples-mixed",
}


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.rule}: {trial.name}")
def test_the_code_of_advice_does_what_its_words_say(trial: Trial) -> None:
    """Fails if code raises, leaves the finding, changes healthy outputs without a word, or is not what the edits do."""
    row = of_trial(trial)
    assert row["wrong"] == "", row


def test_every_rule_whose_advice_has_code_is_tried() -> None:
    """Fails if a rule gets code in its advice that nothing runs, or one stands among the exceptions without need."""
    found = all_found()
    with_code = set(found.loc[found["do"].str.contains("`"), "rule"])
    run = {fault.rule for fault in FAULTS} | {trial.rule for trial in TRIALS}
    assert with_code - run == NOT_OF_A_MODEL


def test_what_is_wrong_with_code_is_told() -> None:
    """Fails if a fault that is not found, or advice that changes nothing, passes."""
    no_fault = of_trial(Trial("nothing", "batch-normalized", trained))
    assert no_fault["wrong"] == "not found"
    assert of_trial(Trial("broken", "batch-normalized", trained, "model.nothing()"))["wrong"].startswith(
        "AttributeError"
    )
    table = pd.DataFrame([no_fault])
    assert by_rule(table)[-1].endswith("| not found |")
    assert not re.search(CHANGES, "Move the bias into the running mean, which leaves the output unchanged.")
