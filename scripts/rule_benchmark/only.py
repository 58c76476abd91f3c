"""What `--only WORD` leaves of the benchmark, known before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from scripts.rule_benchmark.cases import CASES
from scripts.rule_benchmark.code_remedies import ALL_TRIALS
from scripts.rule_benchmark.planted import FAULTS
from scripts.rule_benchmark.tokens import HEALTHY, MISTAKES

SHOWN = 3
"""Names offered where none holds the word."""


def texts_of(part: str, held_out: bool = True) -> list[tuple[str, ...]]:
    """What a word may be found in, of each fault or case of a part, its name first; none of parts that take no word."""
    if part in ("planted", "remedies"):
        faults = (fault for fault in FAULTS if held_out or not fault.held_out)
        return [(fault.name, fault.subject, fault.rule) for fault in faults]
    if part == "code":
        return [(trial.name, trial.rule) for trial in ALL_TRIALS]
    if part == "cases":
        return [(case.name, case.kind, case.source) for case in CASES]
    if part == "tokens":
        return [(one.name,) for one in MISTAKES] + [(f"healthy: {name}",) for name in HEALTHY]
    return []


def parts_with(parts: Iterable[str], word: str, held_out: bool = True) -> list[str]:
    """The parts in which something holds the word, and those that take none.

    Raises LookupError, which offers the nearest names, where nothing holds it.
    """
    texts = {part: texts_of(part, held_out) for part in parts}
    kept = [
        part for part, own in texts.items() if not own or any(word in text for one in own for text in one)
    ]
    if any(texts.values()) and not any(texts[part] for part in kept):
        near = nearest(word, {one[0] for own in texts.values() for one in own})
        raise LookupError(f'--only: nothing holds "{word}". The nearest: {"; ".join(near)}.')
    return kept


def nearest(word: str, names: Iterable[str]) -> list[str]:
    """The names with the words that are most like this one: names are sentences, and a word is a small part of one."""

    def likeness(name: str) -> float:
        words = re.findall(r"\w+", name.lower())
        return max((SequenceMatcher(None, word.lower(), one).ratio() for one in words), default=0.0)

    return sorted(names, key=lambda name: (-likeness(name), name))[:SHOWN]
