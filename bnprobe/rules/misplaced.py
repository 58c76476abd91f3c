"""Rules about vectors of B that A holds elsewhere: under the name of another norm, or in other channels of the same one."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, first_few

LETTERS = {"gamma": "γ", "beta": "β"}

MOST_NAMED = 4
"""Norms spelled out in a sentence."""


def vectors_moved(evidence: Evidence) -> Iterator[Finding]:
    """Norms that hold in B what other norms hold in A: one finding for all."""
    found = _how(evidence, "moved")
    if found.empty:
        return
    sources = dict(zip(found["layer"], found["source"], strict=True))
    exchanged = all(sources.get(source) == layer for layer, source in sources.items())
    along = (found["along"] == "yes").all()
    facts = [
        f"{_words(row['vectors'])} of {said(row['layer'])} {_as(row['vectors'])} of {said(row['source'])} in A"
        for _, row in found.iterrows()
    ]
    n = sum(row["n_channels"] * len(row["vectors"].split(", ")) for _, row in found.iterrows())
    yield Finding(
        "info" if along else "critical",
        found["layer"].iloc[0] if len(found) == 1 else "",
        "Blocks of A have other places in B, their norms with them."
        if along
        else f"Norms have changed places: {count(len(found), 'norm')} of B hold the vectors of other norms of A."
        if exchanged
        else f"{count(len(found), 'norm')} of B {'holds' if len(found) == 1 else 'hold'} the vectors of other norms of A.",
        f"{'; '.join(facts[:MOST_NAMED])}{_more(facts)}: {count(n, 'number')} to the last bit"
        + ("." if along else ", while the other tensors are where they were."),
        "Nothing, if blocks were removed, repeated or put into another order on purpose."
        if along
        else "Compare the names in the converter: a table that exchanges two names, or counts layers from another number, "
        "does this, and shapes agree, so that nothing fails on loading.",
    )


def channels_reordered(evidence: Evidence) -> Iterator[Finding]:
    """Vectors with the numbers of A in other channels: a fault where what belongs together did not go together."""
    found = _how(evidence, "reordered", "picked")
    for _, row in found.iterrows():
        picked, torn = row["how"] == "picked", " | " in row["vectors"]
        # a norm on a stream, or one whose weights are not known, may have been converted with all that reads it
        unread = row["along"] == "unknown" and len(evidence.tensors) > 0
        right = not torn and (picked or row["along"] == "yes" or unread)
        if right and picked:
            continue
        yield Finding(
            "info" if right else "warning",
            row["layer"],
            f"The vectors of this norm are of different channels of A: {_apart(row['vectors'])}."
            if torn
            else "The channels of this norm are those of A in another order.",
            f"{_words(row['vectors'].replace(' | ', ', '))} hold numbers of A to the last bit, {_order(row)}"
            + (
                ", and the weights before the norm did not change with them."
                if row["along"] == "no" and not torn
                else "."
            ),
            "Nothing, if the channels were put into another order throughout the network."
            if right
            else "Pruning, and converters that put channels into another order, must take the same channels in γ, β, "
            "running_mean, running_var, the weights before the norm, and those that take its output. Use one index for all.",
        )


def norms_folded(evidence: Evidence) -> Iterator[Finding]:
    """Norms that B holds in the weights before them: applied twice, without their offset, or as they should be."""
    found = evidence.folds
    if found.empty:
        return
    twice = found[found["norm"] != "initial"]
    lost = found[(found["norm"] == "initial") & ~found["offset"]]
    done = found[(found["norm"] == "initial") & found["offset"]]
    for rows, severity, says, do in (
        (twice, "critical", "were folded into the weights before them, and are in B as well: they act twice.", _TWICE),
        (lost, "critical", "were folded into the weights before them, and what they add was lost with the bias.", _LOST),
        (done, "info", "were folded into the weights before them; those of B are new and change next to nothing.", _DONE),
    ):  # fmt: skip
        if len(rows):
            yield Finding(
                severity,
                rows["layer"].iloc[0] if len(rows) == 1 else "",
                f"{count(len(rows), 'norm')} of A {says}",
                f"at {first_few([said(layer) for layer in rows['layer']])} the filters of B are those of A times "
                f"|γ| / √(running_var + eps), to within {rows['apart'].max():.1%} in the typical channel.",
                do,
            )


_TWICE = (
    "Take the norms out where their layers were fused, or load the weights from before. A function that fuses must replace "
    "the norm by torch.nn.Identity()."
)
_LOST = (
    "Load the fused file into the fused model, whose convolutions have a bias, with strict=True; or load weights from "
    "before they were fused."
)
_DONE = "Nothing, to run B. To train it, or to look at its norms, load weights from before they were fused."


def folded_layers(evidence: Evidence) -> set[str]:
    """Norms that are initial in B because their vectors are in the weights before them."""
    found = evidence.folds
    return set(found.loc[found["norm"] == "initial", "layer"]) if len(found) else set()


def misplaced_layers(evidence: Evidence) -> set[str]:
    """Norms whose vectors are those of A elsewhere: no training changed them."""
    return set(evidence.misplaced["layer"]) if len(evidence.misplaced) else set()


def _how(evidence: Evidence, *ways: str) -> pd.DataFrame:
    found = evidence.misplaced
    return found[found["how"].isin(ways)] if len(found) else found


def _order(row: pd.Series) -> str:
    return (
        f"{row['n_channels']} of its {count(row['n_channels_a'], 'channel')}"
        if row["how"] == "picked"
        else f"in another order of its {count(row['n_channels'], 'channel')}"
    )


def _words(vectors: str) -> str:
    *first, last = [LETTERS.get(name, name) for name in vectors.split(", ")]
    return f"{', '.join(first)} and {last}" if first else last


def _apart(groups: str) -> str:
    first, *others = map(_words, groups.split(" | "))
    return f"{first} {'have' if ' and ' in first else 'has'} others than {' than '.join(others)}"


def _as(vectors: str) -> str:
    return "are those" if "," in vectors else "is that"


def _more(facts: list[str]) -> str:
    more = len(facts) - MOST_NAMED
    return f"; and {more:,} more" if more > 0 else ""


RULES = (
    Rule(
        "vectors-moved",
        "Does every norm of B hold its own vectors?",
        "https://github.com/mapillary/inplace_abn/issues/130",
        "vectors that no other norm of A holds to the last bit, or blocks that have other places as a whole",
        vectors_moved,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "channels-reordered",
        "Are the channels of every norm of B those of A, in all of its vectors?",
        "https://github.com/VainF/Torch-Pruning/issues/508",
        "numbers that A does not hold, or the same order of channels in all vectors and in the weights before the norm",
        channels_reordered,
        by_hand=TWO_SIDES,
    ),
    Rule(
        "fold-unfinished",
        "Is no norm both in the weights before it and in its place?",
        "https://github.com/ultralytics/yolov3/issues/807, https://github.com/open-mmlab/mmdetection/issues/2924",
        "filters whose lengths did not change by |γ| / √(running_var + eps)",
        norms_folded,
        by_hand=TWO_SIDES,
    ),
)
