"""The sentences about what cannot be measured: a side that holds NaN, infinity or negative variances, or lacks vectors."""

from __future__ import annotations

import pandas as pd

from bnprobe.report.chapters.chapter import named
from bnprobe.report.numbers import count


def broken(layers: pd.DataFrame) -> list[str]:
    """What is wrong with one side and not with the other, and where it starts; empty where nothing is."""
    return [
        sentence
        for of in (_poisoned, _lacking)
        for side in "AB"
        if (sentence := of(layers, side)) is not None
    ]


def _poisoned(layers: pd.DataFrame, side: str) -> str | None:
    facts = [(named(row), fact) for _, row in layers.iterrows() if (fact := _fact(row, side))]
    if not facts:
        return None
    layer, fact = facts[0]
    more = f" ({count(len(facts), 'norm')} in all)" if len(facts) > 1 else ""
    return f"{side} is broken{', first' if more else ''} at {layer}: {fact}{more}."


def _fact(row: pd.Series, side: str) -> str:
    """Of what is stored, and of the inputs where those of the other side are all finite."""
    mine, theirs = side.lower(), "b" if side == "A" else "a"
    n = int(row[f"n_nonfinite_{mine}"])
    inputs = f"{count(n, 'input value')} {'is' if n == 1 else 'are'} not finite"
    alone = n > 0 and row[f"n_nonfinite_{theirs}"] == 0
    return " and ".join([row[f"poison_{mine}"]] * bool(row[f"poison_{mine}"]) + [inputs] * alone)


def _lacking(layers: pd.DataFrame, side: str) -> str | None:
    missing = layers[layers[f"missing_{side.lower()}"] != ""]
    if missing.empty:
        return None
    first = missing.iloc[0]
    names = " and ".join(first[f"missing_{side.lower()}"].rsplit(", ", 1))
    where = f"at {named(first)}" if len(missing) == 1 else f"first at {named(first)}"
    other = "B" if side == "A" else "A"
    return f"{side} lacks {names}, which {other} stores, {where} ({count(len(missing), 'norm')} in all)."
