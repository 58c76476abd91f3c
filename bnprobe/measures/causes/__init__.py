"""Causes as hypotheses: why what a norm measures is not what its running statistics say.

One file, one kind of cause; each predicts mean and variance of every channel, and `fit` scores them all alike, against the
discrepancy as it is and against each other:

- `inputs`: what people do to a model's inputs by mistake (`input_maps` lists the mistakes);
- `sites`: what happens to the running statistics of one norm, or before it (few updates, dropout, groups, a factor);
- `samples`: whether a few samples make it up, so that no cause acts on all of them.

How the discrepancy runs through the network, where it enters or that it grows, is read from the table of layers
(`rules.course`).
`table` lists the causes that fit each norm, the best first. A cause may be named where it explains most of the
discrepancy and every other one clearly less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures.causes import fit, samples
from bnprobe.measures.causes.inputs import preprocessing
from bnprobe.measures.causes.sites import HYPOTHESES, Hypothesis, dropout_before
from bnprobe.measures.verdict import never_updated, stores_statistics
from bnprobe.recording import Dropout, LayerRecord, Recording

__all__ = ["COLUMNS", "HYPOTHESES", "discrepancy", "fit", "preprocessing", "table"]

COLUMNS = ("layer", "call", "cause", "facts", "discrepancy", "left_over", "explains", "certain", "next_best")

VISIBLE = 0.15
"""Discrepancy (as in `fit`) from which causes are looked for at all."""

EXPLAINS = 0.75
"""Share of the squared discrepancy that a cause must explain to be listed."""

CLEAR = 1.5
"""Times what the best cause leaves that the next one must leave for the best to be named."""


def discrepancy(record: LayerRecord) -> float:
    """How far what is measured is from the running statistics, as in `fit`; NaN where there are none to compare."""
    if not stores_statistics(record) or never_updated(record) or not (record.pre.n > 0).any():
        return float("nan")
    return fit.rms(fit.left(fit.seen(record), fit.stored(record), record.eps))


def table(recording: Recording) -> pd.DataFrame:
    """The causes that fit each norm that does not match, the best first.

    `cause` is the name of a hypothesis, `facts` its numbers; `explains` is the share of the squared discrepancy that is
    gone once the cause is taken into account, `certain` whether it may be named, and `next_best` the share that the
    best other one explains.
    """
    rows = [row for record in recording.layers for row in _of_site(record, _before(record, recording))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _before(record: LayerRecord, recording: Recording) -> tuple[Dropout, ...]:
    """The modules that drop values before a norm, after the one before it."""
    return tuple(one for one in recording.dropouts if one.before == record.layer)


ASSUMED = {"dropout": ("spread", "moved")}
"""Causes that are known to be there, and what is no rival of them: without dropout, a smaller spread would need a reason."""


def _of_site(record: LayerRecord, before: tuple[Dropout, ...] = ()) -> list[dict[str, Any]]:
    away = discrepancy(record)
    if not away >= VISIBLE:
        return []
    if (share := samples.few(record)) == share:  # a number
        return [_row(record, "few samples", {"few": share}, away)]
    measured = fit.seen(record)
    tried: list[tuple[float, Hypothesis, dict[str, Any]]] = []
    for hypothesis in (*HYPOTHESES, *dropout_before(before)):
        with np.errstate(all="ignore"):  # channels that are not finite drop out of the score
            found = hypothesis.predict(record)
        if found is not None:
            tried.append((fit.rms(fit.left(measured, found.moments, record.eps)), hypothesis, found.facts))
    tried.sort(key=lambda one: one[0])
    rows: list[dict[str, Any]] = []
    for left, hypothesis, facts in tried:
        no_rivals = (hypothesis.name, *ASSUMED.get(hypothesis.name, ()))
        others = [other for other, rival, _ in tried if rival.name not in no_rivals]
        explains, least = fit.explained(left, away), min([*others, away])
        certain = hypothesis.may_be_named and explains >= EXPLAINS and least >= CLEAR * left
        row = _row(record, hypothesis.name, facts, away, certain)
        rows.append({**row, "left_over": left, "explains": explains, "next_best": fit.explained(least, away)})
    return [row for row in rows if float(row["explains"]) >= EXPLAINS]


def _row(
    record: LayerRecord, cause: str, facts: dict[str, Any], away: float, certain: bool = True
) -> dict[str, Any]:
    """A row of the table without the numbers of a fit."""
    return {
        "layer": record.layer,
        "call": record.call,
        "cause": cause,
        "facts": facts,
        "discrepancy": away,
        "certain": certain,
    }
