"""Reports on files for the terminal and for machines: which findings there are, and which of them are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bnprobe.recording import Recording
from bnprobe.report.formats import json
from bnprobe.report.numbers import count
from bnprobe.rules.baseline import fingerprints
from bnprobe.rules.rule_docs import rule_address


class Judged(Protocol):
    """What is needed of a report, which stands above this package."""

    @property
    def recording(self) -> Recording:
        """What it is about."""

    @property
    def layers(self) -> pd.DataFrame:
        """A row per site."""

    @property
    def findings(self) -> pd.DataFrame:
        """A row per finding."""

    def summary(self) -> str:
        """What was looked at, the answer and the findings as text."""

    def to_html(self, path: Path) -> Path:
        """Write its page."""


@dataclass(frozen=True)
class Checked:
    """One file with its report; `new` says of every finding whether a baseline does not know it.

    `compared` says whether there was a baseline at all.
    """

    file: str
    report: Judged
    new: tuple[bool, ...]
    compared: bool = False


def to_text(checked: Sequence[Checked]) -> str:
    """What a person reads in the terminal."""
    return "\n".join(one.report.summary() + _compared(one) for one in checked)


def _compared(one: Checked) -> str:
    known = f", {sum(one.new)} of them not in the baseline" if one.compared else ""
    more = " Run `bnprobe rules RULE` for details of a rule." if one.new else ""
    return f"\n{count(len(one.new), 'finding')}{known}.{more}\n"


def to_json(checked: Sequence[Checked]) -> str:
    """One object: per file its facts, layers and findings. NaN is null."""
    return json.to_json("check", {"files": [_file(one) for one in checked]})


def _file(one: Checked) -> dict[str, Any]:
    about, layers = one.report.recording.about, one.report.layers
    heads = [
        "layer",
        "call",
        "kind",
        "n_channels",
        "mode",
        "n_batches_tracked",
        "feeder",
        "follows",
        "half_headroom",
    ]
    return {
        "file": one.file,
        "model": about.model,
        "weights": about.weights,
        "notes": about.notes,
        "n_parameters": about.n_parameters,
        "layers": layers[heads],
        "findings": _findings(one),
    }


def _findings(one: Checked) -> list[dict[str, Any]]:
    marks = fingerprints(one.report.findings)
    return [
        {
            **row,
            "help": rule_address(str(row["rule"])),
            "fingerprint": mark,
            "new": new,
        }
        for mark, new, row in zip(marks, one.new, json.rows(one.report.findings), strict=True)
    ]
