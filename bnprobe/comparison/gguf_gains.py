"""Gains that a GGUF file stores as the other side uses them: llama.cpp adds the 1 of norms that multiply by 1 + w."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bnprobe.recording import LayerRecord, Recording

NEAR = 0.1
"""Median distance from exactly 1 more: fine-tuning moves no gains so far, and no w is the scale itself."""

MOST = 0.8
"""Share of the norms in which a GGUF file must store 1 more."""

SAYS = (
    "{other} stores w for norms that multiply by 1 + w, and {gguf} stores 1 + w, as llama.cpp does: γ of {other} is 1 + w "
    "here."
)


def with_ones(a: Recording, b: Recording, gguf: str) -> tuple[Recording, Recording, str]:
    """Both sides, and that in words, with the 1 in the gains of the side that stores w; `gguf` is the side that adds it, ""
    for none. B has the names of A."""
    other, of_gguf = (b, a) if gguf == "A" else (a, b)
    there = {(record.layer, record.call): record.gamma for record in of_gguf.layers}
    pairs = [
        (record, gamma)
        for record in other.layers
        if record.gain_alone and (gamma := there.get((record.layer, record.call))) is not None
    ]
    one_more = sum(_is_one_more(record, gamma) for record, gamma in pairs)
    if not gguf or not one_more or one_more < MOST * len(pairs):
        return a, b, ""
    added = replace(other, layers=tuple(map(_with_one, other.layers)))
    says = SAYS.format(other="B" if gguf == "A" else "A", gguf=gguf)
    return (a, added, says) if gguf == "A" else (added, b, says)


def _is_one_more(record: LayerRecord, gamma: np.ndarray) -> bool:
    mine = record.gamma
    return mine is not None and mine.shape == gamma.shape and bool(np.median(np.abs(gamma - mine - 1)) < NEAR)


def _with_one(record: LayerRecord) -> LayerRecord:
    """The sum as it is stored, in float32."""
    if record.gamma is None or not record.gain_alone:
        return record
    scale = (1 + record.gamma.astype(np.float32)).astype(np.float64)
    return replace(record, gamma=scale)
