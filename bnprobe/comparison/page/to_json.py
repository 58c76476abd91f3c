"""A comparison for machines: what its JSON holds beside the findings."""

from __future__ import annotations

from typing import Any

from bnprobe.comparison import Differences, DifferenceSite
from bnprobe.recording import Recording


def contents(
    a: Recording,
    b: Recording,
    tables: Differences,
    identical: bool,
    answer: tuple[str, ...],
    opens: DifferenceSite | None,
) -> dict[str, Any]:
    """Both sides' facts, the answer, where they part, and the tables but for the channels."""
    return {
        "a": a.about,
        "b": b.about,
        "identical": identical,
        "answer": answer,
        "opens": opens,
        "layers": tables.layers,
        "unmatched": tables.unread,
    }
