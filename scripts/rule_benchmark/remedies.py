"""Carry out every rule's remedy: on the network with its fault, and the same edits on the healthy one.

On the faulty network the finding must go; what else changes is measured, with the decisions of the healthy network as
truth. On the healthy network the same edits show what advice costs where it is followed without need.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

import pandas as pd
import torch
from torch.nn import functional as F
from tqdm import tqdm

import bnprobe
from bnprobe.experiments.snapshot import all_put_back
from bnprobe.experiments.trial import Bench as Trial
from bnprobe.rules.edits import all_of
from scripts.rule_benchmark.faults import EVALUATE, Fault
from scripts.rule_benchmark.planted import STEPS, Bench
from scripts.rule_benchmark.subjects import Subject

COLUMNS = (
    "model",
    "fault",
    "rule",
    "edits",
    "fate",
    "why",
    "brings",
    "changes_outputs",
    "accuracy_before",
    "accuracy_after",
    "low",
    "high",
    "n",
    "healthy_changes_outputs",
    "healthy_agreement",
)


def remedies(faults: list[Fault], subjects: dict[str, Subject]) -> pd.DataFrame:
    """A row per fault: what came of its remedy, and what the same edits do to the healthy network."""
    faults = [fault for fault in faults if fault.subject in subjects]
    rows = [of_fault(subjects[fault.subject], fault) for fault in tqdm(faults, unit="remedy", disable=None)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def of_fault(subject: Subject, fault: Fault) -> dict[str, Any]:
    """The row of one fault, by the first finding of its rule."""
    row: dict[str, Any] = {"model": fault.subject, "fault": fault.name, "rule": fault.rule, "edits": ""}
    try:
        return {**row, **_tried(subject, fault)}
    except Exception as error:  # a network with a fault may raise anything
        return {**row, "fate": "not tried", "why": f"{type(error).__name__}: {error}"}


def _tried(subject: Subject, fault: Fault) -> dict[str, Any]:
    bench, healthy = Bench(subject, fault), Bench(subject, None)
    if fault.use != EVALUATE:
        healthy.names["model"].train()
    loss = None if fault.use == EVALUATE else F.cross_entropy
    batches = _batches(bench, healthy, fault)
    constants = (subject.mean, subject.std)
    recording = bnprobe.record(bench.names["model"], batches, loss, normalize=constants)
    report = bnprobe.report(recording)
    own = report.findings["rule"] == fault.rule
    if not own.any():
        return {
            "fate": "not tried",
            "why": "without steps of training it is not found" if loss else "not found",
        }
    remedies = [remedy for remedy, mine in zip(report.remedies, own, strict=True) if mine and remedy]
    tried = (
        bnprobe.try_remedies(report, bench.names["model"], batches, loss=loss).findings["tried"][own].iloc[0]
    )
    return {
        "edits": "; ".join(sorted({type(edit).__name__ for one in remedies for edit in one.edits})),
        "fate": tried.fate,
        "why": tried.why,
        "brings": " ".join(tried.brings),
        "changes_outputs": tried.largest_relative,
        "accuracy_before": tried.before,
        "accuracy_after": tried.after,
        "low": tried.low,
        "high": tried.high,
        "n": tried.n,
        **(_on_healthy(healthy, remedies, fault) if remedies else {}),
    }


def _batches(bench: Bench, healthy: Bench, fault: Fault) -> list[Any]:
    """Inputs as the faulty network gets them, with the decisions of the healthy one on its own; of training as they are."""
    if fault.use != EVALUATE:
        return list(islice(bench.names["loader"], STEPS))
    with torch.no_grad():
        decided = [healthy.names["model"](x).argmax(1) for x in healthy.inputs()]
    return list(zip(bench.inputs(), decided, strict=True))


def _on_healthy(healthy: Bench, remedies: Iterable[Any], fault: Fault) -> dict[str, Any]:
    """The same edits where nothing is wrong."""
    model = healthy.names["model"]
    batches = _batches(healthy, healthy, fault)
    loss = None if fault.use == EVALUATE else F.cross_entropy
    with all_put_back(model) as before:
        report = bnprobe.report(bnprobe.record(model, batches, loss))
        before.restore()
        try:
            effect = Trial(model, before, batches, report, loss=loss).try_out(all_of(list(remedies))).effect
        except Exception:  # edits of modules that only the faulty network has
            return {}
    return {"healthy_changes_outputs": effect.largest_relative, "healthy_agreement": effect.agreement}


def by_rule(table: pd.DataFrame) -> list[str]:
    """Lines of Markdown: for each rule how often its finding goes, and what its remedy changes."""
    lines = ["", "## Remedies carried out", ""]
    lines += [
        "Largest change of an output (norm of the change over norm of the output), accuracy against the decisions of the "
        "healthy network, before → after; medians over faults. Healthy: the same edits on the network without the fault.",
        "",
        "| rule | edits | tried | gone | outputs change | accuracy | healthy outputs change | healthy decisions stay |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rule, rows in table.groupby("rule", sort=True):
        tried = rows[rows["fate"] != "not tried"]
        if tried.empty:
            lines.append(f"| {rule} | | 0 of {len(rows)} | | {rows['why'].iloc[0]} | | | |")
            continue
        gone = int((tried["fate"] == "gone").sum())
        number = tried[list(COLUMNS[7:])].apply(pd.to_numeric, errors="coerce").median()
        edits = ", ".join(dict.fromkeys("; ".join(tried["edits"]).split("; ")))
        lines.append(
            f"| {rule} | {edits} | {len(tried)} of {len(rows)} | {gone} | {_share(number['changes_outputs'])} | "
            f"{_share(number['accuracy_before'])} → {_share(number['accuracy_after'])} | "
            f"{_share(number['healthy_changes_outputs'])} | {_share(number['healthy_agreement'])} |"
        )
    return lines


def _share(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.1%}" if value < 10 else f"{value:,.0f} times"
