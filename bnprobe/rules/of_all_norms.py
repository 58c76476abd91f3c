"""A note that holds for every norm of a network alike, given once for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bnprobe.recording.names import said
from bnprobe.rules.rule import Finding


def once(notes: Sequence[Finding], n_sites: int, says: str) -> Iterator[Finding]:
    """One note where each of several sites has it and the same is advised; else every note.

    `n_sites` is the number of sites that the rule looks at, and `says` the sentence about all of them.
    """
    same = len({note.do for note in notes}) == 1
    if len(notes) < 2 or len(notes) < n_sites or not same:
        yield from notes
        return
    first = notes[0]
    because = f"so it is at all {n_sites} places; at {said(first.layer, first.call)}, {first.because}"
    yield replace(first, layer="", call=0, says=says, because=because)
