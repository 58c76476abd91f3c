"""A comparison for machines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bnprobe.report.formats.check import plain
from bnprobe.rules.rule_docs import rule_address
from bnprobe.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from bnprobe.comparison.result import Comparison
    from bnprobe.recording import Recording

FACTS = ("model", "weights", "data", "preprocessing", "device", "started", "n_images", "n_forwards", "notes")


def to_json(comparison: Comparison) -> str:
    """One object; NaN is null. Channels are left out: they are in `comparison.channels`."""
    opens = comparison.opens
    whole = {
        "tool": "bnprobe",
        "version": __version__,
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "identical": comparison.identical,
        "answer": list(comparison.answer),
        "opens": None if opens is None else {name: plain(value) for name, value in opens._asdict().items()},
        "layers": _rows(comparison.layers),
        "unmatched": _rows(comparison.unmatched),
        "findings": [{**row, "help": rule_address(str(row["rule"]))} for row in _rows(comparison.findings)],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _side(recording: Recording) -> dict[str, Any]:
    return {name: plain(getattr(recording.about, name)) for name in FACTS}


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): plain(value) for name, value in row.items()} for _, row in table.iterrows()]
