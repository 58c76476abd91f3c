"""Findings as SARIF 2.1.0, the form in which code hosts and editors show what an analysis found.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0, 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bnprobe.report.formats.check import Checked
from bnprobe.report.formats.json import dumped
from bnprobe.rules import RULES
from bnprobe.rules.baseline import fingerprints
from bnprobe.rules.rule_docs import rule_address, rule_markdown, rule_page
from bnprobe.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"critical": "error", "warning": "warning", "info": "note"}


def to_sarif(checked: Sequence[Checked]) -> str:
    """One run with the rule book, the files, and a result per finding."""
    run = {
        "tool": {"driver": _driver()},
        "artifacts": [{"location": {"uri": _uri(one.file)}} for one in checked],
        "results": [result for place, one in enumerate(checked) for result in _results(one, place)],
        "columnKind": "unicodeCodePoints",
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return dumped(log)


def _driver() -> dict[str, Any]:
    return {
        "name": "bnprobe",
        "semanticVersion": __version__,
        "rules": [_rule(rule) for rule in RULES],
    }


def _rule(rule: Any) -> dict[str, Any]:
    page = rule_page(rule.id)
    return {
        "id": rule.id,
        "name": "".join(word.title() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.asks},
        "fullDescription": {"text": next(iter(page.values()))},
        "help": {"text": " ".join(page.values()), "markdown": rule_markdown(rule.id)},
        "helpUri": rule_address(rule.id),
        "properties": {"source": rule.source, "silent": rule.silent},
    }


def _results(one: Checked, place: int) -> list[dict[str, Any]]:
    marks = fingerprints(one.report.findings)
    return [
        _result(row, _location(one.file, place, str(row["layer"])), mark, _state(new) if one.compared else {})
        for mark, new, (_, row) in zip(marks, one.new, one.report.findings.iterrows(), strict=True)
    ]


def _state(new: bool) -> dict[str, str]:
    return {"baselineState": "new" if new else "unchanged"}


def _result(row: Any, location: dict[str, Any], mark: str, state: dict[str, str]) -> dict[str, Any]:
    return {
        "ruleId": row["rule"],
        "ruleIndex": [rule.id for rule in RULES].index(row["rule"]),
        "level": LEVELS[row["severity"]],
        "message": {"text": f"{row['says']} {row['because']} What to do: {row['do']}"},
        "locations": [location],
        "partialFingerprints": {"bnprobe/v1": mark},
        "properties": {"channels": list(row["channels"]), "call": int(row["call"])},
        **state,
    }


def _location(file: str, place: int, layer: str) -> dict[str, Any]:
    """The file, and in it the layer by its path; some readers want a line even of a binary file."""
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(file), "index": place},
            "region": {"startLine": 1},
        }
    }
    if layer:
        name = {"name": layer.rpartition(".")[2], "fullyQualifiedName": layer, "kind": "module"}
        location["logicalLocations"] = [name]
    return location


def _uri(file: str) -> str:
    """Relative to where the check ran, or absolute."""
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
