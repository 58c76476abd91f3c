"""γ and β that went back to their initial values from A to B, as reset_parameters(), an init function or a key that was not
found when loading leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pandas as pd

from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.compared_weights import has_lost_statistics
from bnprobe.rules.misplaced import folded_layers
from bnprobe.rules.newness import FIRST_STEPS
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count, in_all

LEARNED = 0.1
"""Distance from its initial value in A from which a vector has learned: no training leads from there to within
FIRST_STEPS of that value in every channel."""


def affine_reset(evidence: Evidence) -> Iterator[Finding]:
    """Norms whose γ or β had learned in A and are initial in B; one finding where nothing in B has learned."""
    in_filters = folded_layers(evidence)
    sites = [
        (row, channels)
        for row, channels in evidence.sites
        if row["call"] == 0 and row["layer"] not in in_filters
    ]
    found = [(row, channels, facts) for row, channels in sites if (facts := _went_back(channels))]
    if not found or evidence.apart:
        return
    if len(sites) > 1 and all(_initial(channels) for _, channels in sites):
        yield Finding(
            "warning",
            "",
            "Every γ and β of B has its initial value: B is a new network, or was reset as a whole.",
            f"in A, those of {count(len(found), 'norm')} of {len(sites)} had learned.",
            "If B is meant to be trained, its weights were not loaded: use load_state_dict(..., strict=True), and call no "
            "init after it. If B is the earlier state, compare in the other order.",
        )
        return
    for row, channels, facts in found:
        if has_lost_statistics(row, channels):
            continue  # a norm that was reset as a whole is reported by its statistics
        yield Finding(
            "warning",
            row["layer"],
            f"{' and '.join(facts)} went back to initial values from A to B: what this norm had learned is lost.",
            f"{'; '.join(facts.values())}, {in_all(channels)}.",
            "An init function or reset_parameters() that ran after loading, or a key that was not found with strict=False, "
            "does this. Load A's vectors again, with load_state_dict(..., strict=True) after every init.",
            call=row["call"],
        )


def _went_back(channels: pd.DataFrame) -> dict[str, str]:
    """The vectors that did, by their letters, each with its numbers.

    A γ of 1 may have moved by some steps of training since, and a β of 0 beside it.
    """
    facts: dict[str, str] = {}
    for name, letter, starts in (("gamma", "γ", (1.0, 0.0)), ("beta", "β", (0.0,))):
        mine, theirs = channels[f"{name}_a"], channels[f"{name}_b"]
        for start in starts:
            near = FIRST_STEPS if start == 1 or facts else 0.0
            away = _distance(mine, start)
            # what is not finite in A was broken there, and not learned
            if LEARNED < away < inf and _distance(theirs, start) <= near:
                at = "is" if (theirs == start).all() else "is nearly"
                facts[letter] = f"{letter} {at} {start:g} in B, and in A it is up to {away:.2g} away"
    return facts


def _initial(channels: pd.DataFrame) -> bool:
    """Whether nothing in B has learned here, as far as it has vectors."""
    gamma, beta = channels["gamma_b"], channels["beta_b"]
    started = gamma.isna().all() or min(_distance(gamma, start) for start in (1.0, 0.0)) <= FIRST_STEPS
    return bool(started and (beta.isna().all() or _distance(beta, 0.0) <= FIRST_STEPS))


def _distance(vector: pd.Series, start: float) -> float:
    """The largest of a channel; NaN, which is neither far nor near, where a number is missing."""
    return float((vector - start).abs().max(skipna=False))


RULES = (
    Rule(
        "affine-reset",
        "Does B still have the γ and β that A had learned?",
        "https://github.com/huggingface/transformers/issues/29554",
        "γ other than 1 and 0 and β other than 0 in B, or initial values in A as well",
        affine_reset,
        by_hand=TWO_SIDES,
    ),
)
