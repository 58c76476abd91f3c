"""The code of every rule's advice is run: by a planted fault, by a small network here, or it is code for another place."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

pytest.importorskip("torchvision", reason="a trial has its frozen norms")

from rules.firing import all_found

from scripts.rule_benchmark.code_remedies import ALL_TRIALS, CHANGES, Bench, by_rule, of_trial
from scripts.rule_benchmark.code_trials import Trial, trained
from scripts.rule_benchmark.faults import FAULTS


@pytest.mark.parametrize("trial", ALL_TRIALS, ids=lambda trial: f"{trial.rule}: {trial.name}")
def test_the_code_of_advice_does_what_its_words_say(trial: Trial) -> None:
    """Fails if code raises, leaves the finding, changes healthy outputs without a word, or is not what the edits do."""
    row = of_trial(trial)
    assert row["wrong"] == "", row


def test_every_rule_whose_advice_has_code_is_tried() -> None:
    """Fails if a rule gets code in its advice that nothing runs."""
    found = all_found()
    with_code = set(found.loc[found["do"].str.contains("`"), "rule"])
    run = {fault.rule for fault in FAULTS} | {trial.rule for trial in ALL_TRIALS}
    assert with_code <= run


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


def test_code_that_only_looks_names_the_operation_and_leaves_the_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fails if the operation before the root is named, as anomaly mode alone does, or running statistics move."""
    (trial,) = (trial for trial in ALL_TRIALS if trial.name == "a root of 0")
    bench = Bench(trial)
    bench.run(trial.fault)
    before = bench.outputs()
    advice = list(bench.findings()["do"])
    bench.trial = replace(trial, words="")
    bench.follow(advice)
    printed = capsys.readouterr().out
    assert printed.startswith("SqrtBackward")
    assert "Amin" not in printed
    assert bench.change(before) == 0
    assert all(p.grad is None for p in bench.model.parameters())


def test_copies_are_printed_with_their_number_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Fails if samples that are there once are printed or left out: 20 of 60 are one blank image."""
    (trial,) = (trial for trial in ALL_TRIALS if trial.name == "blank images")
    bench = Bench(trial)
    code = re.findall(r"`([^`]+)`", bench.findings()["do"].iloc[0])
    for one in code:
        bench.run(one)
    assert capsys.readouterr().out.splitlines() == [f"{i} [(20, 0.0)]" for i in range(5)]
    kept = bench.names["batches"]
    assert [len(x) for x, _ in kept] == [len(y) for _, y in kept] == [40] * 5
    assert all(
        torch.equal(x, whole[20:]) for (x, _), (whole, _) in zip(kept, trial_batches(trial), strict=True)
    )


def trial_batches(trial: Trial) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """As a bench draws them."""
    return list(Bench(trial).names["batches"])


@pytest.mark.parametrize(("name", "advised"), [("train mode", True), ("no running statistics", False)])
def test_eval_mode_is_advised_where_there_are_statistics_alone(name: str, advised: bool) -> None:
    """Fails if a norm without running statistics, in train mode, is said to use them in eval mode."""
    (trial,) = (trial for trial in ALL_TRIALS if (trial.rule, trial.name) == ("samples-mixed", name))
    bench = Bench(trial)
    bench.run(trial.fault)
    bench.model.train()
    assert ("`model.eval()`" in bench.findings()["do"].item()) is advised


def test_the_division_of_one_norm_is_carried_out_as_an_edit() -> None:
    """Fails if statistics that a converter left undivided get another remedy than the division."""
    (trial,) = (trial for trial in ALL_TRIALS if trial.rule == "data-shifted" and "converter" in trial.name)
    row = of_trial(trial)
    assert (row["edits"], row["left"], row["wrong"]) == ("DivideStatistics", 0, "")
    # 999.9 times as much in mean and variance: a number of the fault, and of no code
    assert "n.running_mean /= 99" in row["code"] or "n.running_mean /= 1000" in row["code"]


def test_a_table_that_was_kept_is_summed_up_as_a_new_one(tmp_path: Path) -> None:
    """Fails if a number that is missing, an empty text once it was written, ends the summary, or shows as nan%."""
    rows = [{"rule": "a", "fault": "b", "found": 1, "left": 0, "said": True, "wrong": ""}] * 3
    changes = ((0.25, 0.0), (float("nan"), 0.5), (1.0, float("inf")))
    table = pd.DataFrame(
        [
            {**row, "changes_outputs": a, "healthy_changes_outputs": b}
            for row, (a, b) in zip(rows, changes, strict=True)
        ]
    )
    table.to_csv(tmp_path / "code.csv", index=False)
    kept = pd.read_csv(tmp_path / "code.csv", keep_default_na=False)
    assert by_rule(kept) == by_rule(table)
    cells = [line.split(" | ")[3:5] for line in by_rule(table)[-3:]]
    assert cells == [["25.0%", "0.0%"], ["finite again", "50.0%"], ["100.0%", "no longer finite"]]
