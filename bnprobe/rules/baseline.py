"""Findings that were there before: a file of fingerprints, so that only what is new counts.

A fingerprint is made of the rule and the layer, not of channels, numbers or file names: a finding that
grows by a channel, or moves on to the next epoch's file, is the same one. One that became more severe is new,
and so is a second one where the baseline has one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bnprobe.errors import BadSettings
from bnprobe.files import read_input, write_output
from bnprobe.severity import SEVERITIES, at_least

SCHEMA = 1
LARGEST = 64 * 2**20
"""Bytes of a baseline that are read: a hundred thousand findings take a fifth of that."""

AGAIN = "Write it again with --write-baseline FILE."


def fingerprint(rule: str, layer: str, call: int) -> str:
    """16 hexadecimal digits for a rule at a site."""
    return hashlib.sha256(json.dumps([rule, layer, int(call)]).encode()).hexdigest()[:16]


def fingerprints(findings: pd.DataFrame) -> list[str]:
    """One per finding; those of one rule at one site share theirs."""
    return [fingerprint(row["rule"], row["layer"], row["call"]) for _, row in findings.iterrows()]


def write_baseline(tables: Sequence[pd.DataFrame], path: Path) -> Path:
    """Write what these tables of findings hold; raises CannotWrite where that is not possible."""
    entries = [
        {"fingerprint": mark, "severity": row["severity"], "rule": row["rule"], "layer": row["layer"]}
        for findings in tables
        for mark, (_, row) in zip(fingerprints(findings), findings.iterrows(), strict=True)
    ]
    entries.sort(key=lambda entry: (entry["layer"], entry["rule"], entry["severity"]))
    content = {"format": "bnprobe baseline", "schema": SCHEMA, "findings": entries}
    return write_output(path, (json.dumps(content, indent=1) + "\n").encode())


def read_baseline(path: Path) -> list[tuple[str, str]]:
    """(fingerprint, severity) of every finding of the file; BadSettings where it is no baseline."""
    try:
        content = json.loads(read_input(path, LARGEST).decode("utf-8"))
        entries = [(str(e["fingerprint"]), str(e["severity"])) for e in content["findings"]]
        sound = content["format"] == "bnprobe baseline" and content["schema"] == SCHEMA
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror or error}. {AGAIN}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        sound, entries = False, []
    if not sound or any(severity not in SEVERITIES for _, severity in entries):
        raise BadSettings(f"{path} is not a baseline written by this version of bnprobe. {AGAIN}")
    return entries


def new_ones(tables: Sequence[pd.DataFrame], known: Sequence[tuple[str, str]]) -> list[list[bool]]:
    """For every finding of every table whether it is new; each entry of the baseline accounts for one finding."""
    left = sorted(known, key=lambda entry: SEVERITIES.index(entry[1]))
    return [
        [
            _is_new(mark, str(severity), left)
            for mark, severity in zip(fingerprints(findings), findings["severity"], strict=True)
        ]
        for findings in tables
    ]


def _is_new(mark: str, severity: str, left: list[tuple[str, str]]) -> bool:
    """Whether no entry is left that is as severe; the one that is goes."""
    for entry in left:
        if entry[0] == mark and entry[1] in at_least(severity):
            left.remove(entry)
            return False
    return True
