"""Plant faults as people make them into healthy models, and see which rule finds which.

Three demands on every fault: its own rule finds it at warning or above, at most two other rules say anything at
warning or above, and when the code in the finding's advice has been run, the finding is gone. A healthy model gets no
critical finding and at most one warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

import bnprobe
from scripts.rule_benchmark.faults import EVALUATE, FAULTS, Fault
from scripts.rule_benchmark.subjects import TRAINED, Subject

MODELS = ("demo", "resnet20", *TRAINED)
MOST_OTHERS = 2
EVALUATED_AT_A_TIME = 60
STEPS = 9
"""Of training: one more than a verdict on noisy gradients needs."""


class Bench:
    """One model with one fault, and what is done about it: code is run on names, as a user would type it."""

    def __init__(self, subject: Subject, fault: Fault | None) -> None:
        self.subject, self.use = subject, fault.use if fault else EVALUATE
        self.of_x: list[str] = []
        mean, std = subject.constants
        torch.manual_seed(0)
        loader = subject.loader()
        x, y = next(iter(loader))
        packages = {"torch": torch, "nn": nn, "F": F, "bnprobe": bnprobe, "DataLoader": DataLoader}
        models = {"model": subject.build(), "new": subject.new, "build": subject.build}
        data = {"loader": loader, "mean": mean, "std": std, "x": x, "y": y, "loss": F.cross_entropy}
        self.names: dict[str, Any] = packages | models | data
        if self.use != EVALUATE:
            self.names["model"].train()
        if fault:
            self.run(fault.code)

    def run(self, code: str) -> None:
        """Execute lines; those that make `x` are kept for every batch."""
        if re.match(r"(m, s = .*; )?x = ", code):
            self.of_x.append(code)
        else:
            exec(code, self.names)

    def follow(self, advice: str) -> None:
        """Run what stands between backticks; commands of the shell are not for us."""
        self.names["batches"] = [(x, None) for x in self.inputs()]
        for code in re.findall(r"`([^`]+)`", advice):
            self.run(code)

    def inputs(self) -> Iterator[Tensor]:
        """The batches of evaluation, as the user prepares them."""
        for pixels in self.subject.pixels.split(EVALUATED_AT_A_TIME):
            names = {**self.names, "pixels": pixels}
            names["x"] = (pixels - names["mean"]) / names["std"]
            for code in self.of_x:
                exec(code, names)
            yield names["x"]

    def findings(self) -> pd.DataFrame:
        """What the rules say at warning or above once the model has been used."""
        model = self.names["model"]
        with bnprobe.attach(model, normalize=(self.subject.mean, self.subject.std)) as probe:
            self.evaluate(model) if self.use == EVALUATE else self.train(model)
        found = bnprobe.report(probe).findings
        return found[found["severity"] != "info"]

    def evaluate(self, model: nn.Module) -> None:
        with torch.no_grad():
            for x in self.inputs():
                model(x)

    def train(self, model: nn.Module) -> None:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        for _, (x, y) in zip(range(STEPS), self.names["loader"], strict=False):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


@dataclass(frozen=True)
class Outcome:
    """What became of one fault, or of a healthy model (without a rule)."""

    fault: Fault
    found: tuple[str, ...]
    others: tuple[str, ...]
    left: tuple[str, ...]
    advice: str
    trouble: str = ""

    @property
    def misses(self) -> list[str]:
        """The demands that are not met, in words."""
        said = [f"raised {self.trouble}"] * bool(self.trouble)
        said += ["not found"] * (not self.found and not self.trouble)
        said += [f"{len(self.others)} other rules"] * (len(self.others) > MOST_OTHERS)
        said += ["the advice does not remove it"] * bool(self.left)
        return said


def tried(subject: Subject, fault: Fault) -> Outcome:
    """Plant, look, follow the advice, look again."""
    found: pd.DataFrame = pd.DataFrame()
    try:
        found = Bench(subject, fault).findings()
        own = found[found["rule"] == fault.rule]
        others = tuple(sorted(set(found["rule"]) - {fault.rule}))
        mended = Bench(subject, fault)
        for advice in own["do"]:
            mended.follow(advice)
        after = mended.findings()
        left = after[after["rule"] == fault.rule]
    except Exception as error:
        return Outcome(fault, (), (), (), "", f"{type(error).__name__}: {error}")
    advice = own["do"].iloc[0] if len(own) else ""
    return Outcome(fault, tuple(own["severity"]), others, tuple(left["layer"]), advice)


def healthy(subject: Subject) -> tuple[pd.DataFrame, bool]:
    """The findings on the model as it is, and whether it is left in peace."""
    found = Bench(subject, None).findings()
    fine = not (found["severity"] == "critical").any() and len(found) <= 1
    return found, fine


def chosen(only: str, held_out: bool) -> list[Fault]:
    """The faults whose name, model or rule holds `only`."""
    return [
        fault
        for fault in FAULTS
        if any(only in text for text in (fault.name, fault.subject, fault.rule))
        and (held_out or not fault.held_out)
    ]


def confusion(outcomes: list[Outcome]) -> pd.DataFrame:
    """A row per planted rule, a column per rule that spoke at warning or above: how many faults set it off."""
    pairs = [
        (outcome.fault.rule, rule)
        for outcome in outcomes
        for rule in (*([outcome.fault.rule] * bool(outcome.found)), *outcome.others)
    ]
    table = pd.DataFrame(pairs, columns=["planted", "found"])
    counts = pd.crosstab(table["planted"], table["found"])
    planted = pd.Series([outcome.fault.rule for outcome in outcomes]).value_counts()
    counts.insert(0, "faults", planted.reindex(counts.index))
    return counts


def as_row(outcome: Outcome) -> dict[str, Any]:
    fault = outcome.fault
    return {
        "model": fault.subject,
        "fault": fault.name,
        "code": fault.code,
        "use": fault.use,
        "held_out": fault.held_out,
        "rule": fault.rule,
        "severity": outcome.found[0] if outcome.found else "",
        "other_rules": " ".join(outcome.others),
        "gone_after_advice": not outcome.left and bool(outcome.found),
        "advice": outcome.advice,
        "missed": "; ".join(outcome.misses),
    }


def print_outcomes(outcomes: list[Outcome], say: Callable[[str], None] = print) -> None:
    for outcome in outcomes:
        fault, missed = outcome.fault, "; ".join(outcome.misses)
        say(
            f"{'MISSED' if missed else 'found '} {fault.subject:11} {fault.rule:25} {fault.name}"
            f"{' (held out)' if fault.held_out else ''}"
        )
        say("".join(f"       | {line}\n" for line in fault.code.splitlines()).rstrip("\n"))
        if outcome.others:
            say(f"         also: {', '.join(outcome.others)}")
        if missed:
            say(f"         {missed}{' in ' + ', '.join(outcome.left[:3]) if outcome.left else ''}")


def planted(faults: list[Fault], found: dict[str, Subject]) -> tuple[pd.DataFrame, bool]:
    """Every fault in its model: a row each, printed as they are; and whether all met every demand."""
    faults = [fault for fault in faults if fault.subject in found]
    outcomes = [tried(found[fault.subject], fault) for fault in tqdm(faults, unit="fault", disable=None)]
    print_outcomes(outcomes)
    print("\nRules that spoke at warning or above (columns) for faults of each rule (rows):")
    print(confusion(outcomes).to_string())
    n_missed = sum(bool(outcome.misses) for outcome in outcomes)
    held = [outcome for outcome in outcomes if outcome.fault.held_out]
    print(
        f"\n{len(outcomes) - n_missed} of {len(outcomes)} faults met every demand; "
        f"of the {len(held)} held out, {sum(not outcome.misses for outcome in held)}."
    )
    return pd.DataFrame(map(as_row, outcomes)), n_missed == 0
