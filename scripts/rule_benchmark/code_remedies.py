"""Run the code of advice as it stands: on the network with its fault, and on a copy of the healthy one.

On the faulty one the finding must go. On the healthy one outputs must stay, unless the advice says that results change.
Where the finding has edits as well, they must leave the same outputs as the code.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

import bnprobe
from bnprobe.experiments.carry_out import Subject, carry_out
from bnprobe.rules.edits import OfInputs, Remedy
from scripts.rule_benchmark.code_trials import TRIALS, Trial
from scripts.rule_benchmark.own_code_trials import OWN_CODE

COLUMNS = (
    "rule",
    "fault",
    "found",
    "left",
    "edits",
    "changes_outputs",
    "healthy_changes_outputs",
    "edits_differ",
    "said",
    "wrong",
    "code",
)

ALL_TRIALS = (*TRIALS, *OWN_CODE)

SAME = 1e-4
"""Largest change of an output, relative to the outputs, that is rounding."""

CHANGES = re.compile(
    r"results|accurac|retrain|train (again|on)\b|re-estimat|continue with the model as it was|converter"
)
"""Words of advice by which a reader knows that outputs change; a converter's mistake is mended in a network that has it."""


def code_remedies(only: str = "", trials: Iterable[Trial] = ALL_TRIALS) -> pd.DataFrame:
    """A row per trial whose name or rule holds `only`."""
    wanted = [trial for trial in trials if only in trial.name or only in trial.rule]
    rows = [of_trial(trial) for trial in tqdm(wanted, unit="trial", disable=None)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def of_trial(trial: Trial) -> dict[str, Any]:
    """What came of the code of one finding's advice; `wrong` is empty where that is as it should be."""
    row: dict[str, Any] = {"rule": trial.rule, "fault": trial.name, "found": 0, "code": ""}
    try:
        with warnings.catch_warnings():
            # scales in float32 over inputs in half precision, as advised, cost torch its fused kernel
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
            row |= _carried_out(trial)
    except Exception as error:
        return {**row, "wrong": f"{type(error).__name__}: {error}"}
    wrong = ["not found"] * (not row["found"]) + ["the advice has no code"] * (
        bool(row["found"]) and not row["code"] and not trial.words
    )
    wrong += ["the finding is still there"] * bool(row["left"])
    wrong += ["outputs change, and the advice does not say so"] * (
        row["healthy_changes_outputs"] > SAME and not row["said"]
    )
    wrong += ["edits do something else than the code"] * (row["edits_differ"] > SAME)
    return {**row, "wrong": "; ".join(wrong)}


def _carried_out(trial: Trial) -> dict[str, Any]:
    bench = Bench(trial)
    bench.run(trial.fault)
    own = bench.findings()
    advice, remedies = list(dict.fromkeys(own["do"])), [one for one in own["remedy"] if one]
    by_edits = Bench(trial)
    by_edits.run(trial.fault)
    faulty = bench.outputs()
    # what is random must be the same
    for part in (bench, by_edits):
        torch.manual_seed(2)
        part.follow(advice) if part is bench else part.carry_out(remedies)
    differ = bench.change(by_edits.outputs()) if remedies else 0.0
    changes = bench.change(faulty)
    bench.run(trial.after)
    healthy = Bench(trial)
    before = healthy.outputs()
    torch.manual_seed(2)
    healthy.follow(advice)
    return {
        "found": len(own),
        "code": "; ".join(code for do in advice for code in _codes(do)),
        "left": len(bench.findings()),
        "edits": "; ".join(sorted({type(edit).__name__ for one in remedies for edit in one.edits})),
        "changes_outputs": changes,
        "healthy_changes_outputs": healthy.change(before),
        "edits_differ": differ,
        "said": any(bool(CHANGES.search(do)) for do in advice),
    }


def _codes(advice: str) -> list[str]:
    return re.findall(r"`([^`]+)`", advice)


class Bench:
    """The healthy network of a trial and its data, and what is done to it: code runs on names, as a user would type it."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        model = trial.build()
        torch.manual_seed(1)
        batches = trial.data()
        x, y = batches[0]
        dataset = TensorDataset(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]))
        self.names: dict[str, Any] = {
            "torch": torch,
            "nn": nn,
            "F": F,
            "bnprobe": bnprobe,
            "model": model.train(trial.learns),
            "build": trial.build,
            "loader": DataLoader(dataset, batch_size=len(x)),
            "batches": batches,
            "x": x,
            "y": y,
            "loss": F.cross_entropy,
            "train": self.train,
        }

    @property
    def model(self) -> nn.Module:
        """As the code left it."""
        model: nn.Module = self.names["model"]
        return model

    def run(self, code: str) -> None:
        """Execute lines."""
        exec(code, self.names)

    def follow(self, advice: list[str]) -> None:
        """Run what stands between backticks, or what the words around it ask for."""
        self.names["code"] = [code for do in advice for code in _codes(do)]
        for code in [self.trial.words] if self.trial.words else self.names["code"]:
            self.run(code)

    def carry_out(self, remedies: list[Remedy]) -> None:
        """The edits of findings, each once."""
        edits = dict.fromkeys(
            edit for one in remedies for edit in one.edits if not isinstance(edit, OfInputs)
        )
        carry_out(edits, Subject(self.model, list(self.names["loader"])))

    def findings(self) -> pd.DataFrame:
        """What the trial's rule finds when the network is used, on a copy: hooks of the code go with it."""
        model = copy.deepcopy(self.model)
        batches = list(islice(self.names["loader"], self.trial.recorded))
        if self.trial.mixes:
            found = bnprobe.invariances(model, batches, probes="batch").findings
            return found[found["rule"] == self.trial.rule].assign(remedy=None)
        if not self.trial.learns:
            report = bnprobe.report(bnprobe.record(model, batches))
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
            with bnprobe.attach(model) as probe:
                self._step(model, optimizer, islice(batches * 2, 10), probe)
            report = bnprobe.report(probe)
        found = report.findings.assign(remedy=report.remedies)
        return found[(found["rule"] == self.trial.rule) & found["severity"].isin(self.trial.severities)]

    def train(self, steps: int = 10) -> None:
        """Some steps of training."""
        optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-2)
        self._step(self.model, optimizer, islice(list(self.names["loader"]) * steps, steps))

    def _step(self, model: nn.Module, optimizer: Any, batches: Iterable[Any], probe: Any = None) -> None:
        for x, y in batches:
            optimizer.zero_grad()
            with nullcontext() if probe is None else probe.labels(y), self._autocast():
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    def _autocast(self) -> torch.autocast:
        """In the precision of the trial's steps, if it has one."""
        precision = self.trial.precision
        return torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None)

    def outputs(self) -> Tensor:
        """Of the first batch, in eval mode."""
        model = copy.deepcopy(self.model).eval()
        with torch.no_grad(), self._autocast():
            output: Tensor = model(self.names["x"])
        return output

    def change(self, before: Tensor) -> float:
        """Largest change of an output, relative to the largest; infinite where it is not finite any more."""
        now = self.outputs()
        if not now.isfinite().all():
            return float("inf") if before.isfinite().all() else 0.0
        return float((now - before).abs().max() / before.abs().max().clamp(min=1e-30))


def by_rule(table: pd.DataFrame) -> list[str]:
    """Lines of Markdown: a row per trial."""
    lines = ["", "## Code of advice, run", ""]
    lines += [
        "As it stands, on small networks: the largest change of an output, relative to the largest, of the network with the "
        "fault and of the healthy one.",
        "",
        "| rule | fault | gone | outputs change | healthy outputs change | the advice says so | wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        gone = "yes" if row.found and not row.left else "no"
        changes = f"{_percent(row.changes_outputs)} | {_percent(row.healthy_changes_outputs)}"
        said = "yes" if row.said else "no"
        lines.append(f"| {row.rule} | {row.fault} | {gone} | {changes} | {said} | {row.wrong} |")
    return lines


def _percent(change: float | str) -> str:
    """A change as written to the table and read from it, where a number that is missing is an empty text."""
    value = float("nan" if change == "" else change)
    if np.isnan(value):
        return "finite again"  # relative to outputs that were not
    return "no longer finite" if np.isinf(value) else f"{value:.1%}"
