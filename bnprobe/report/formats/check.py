"""Reports on files for the terminal and for machines: which findings there are, and which of them are new."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnprobe.report.page.numbers import count
from bnprobe.report.result import Report
from bnprobe.rules.baseline import fingerprints
from bnprobe.rules.rule_docs import rule_address
from bnprobe.version import __version__


@dataclass(frozen=True)
class Checked:
    """One file with its report; `new` says of every finding whether a baseline does not know it.

    `compared` says whether there was a baseline at all.
    """

    file: str
    report: Report
    new: tuple[bool, ...]
    compared: bool = False


def to_text(checked: Sequence[Checked]) -> str:
    """What a person reads in the terminal."""
    return "\n".join(one.report.summary() + _compared(one) for one in checked)


def _compared(one: Checked) -> str:
    known = f", {sum(one.new)} of them not in the baseline" if one.compared else ""
    more = " `bnprobe rules RULE` tells more of a rule." if one.new else ""
    return f"\n{count(len(one.new), 'finding')}{known}.{more}\n"


def to_json(checked: Sequence[Checked]) -> str:
    """One object: the tool, and per file its facts, layers and findings. NaN is null."""
    whole = {"tool": "bnprobe", "version": __version__, "files": [_file(one) for one in checked]}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
        "notes": list(about.notes),
        "n_parameters": about.n_parameters,
        "layers": [{head: plain(row[head]) for head in heads} for _, row in layers.iterrows()],
        "findings": _findings(one),
    }


def _findings(one: Checked) -> list[dict[str, Any]]:
    marks = fingerprints(one.report.findings)
    return [
        {
            **{str(name): plain(value) for name, value in row.items()},
            "help": rule_address(str(row["rule"])),
            "fingerprint": mark,
            "new": new,
        }
        for mark, new, (_, row) in zip(marks, one.new, one.report.findings.iterrows(), strict=True)
    ]


def plain(value: Any) -> Any:
    """As JSON has it: lists, numbers and null."""
    if isinstance(value, tuple):
        return list(value)
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
