"""A mismatch below the thresholds, where no other is reported: one that begins inside the network, or with its inputs.

Inputs that are a little different show at the first norm as well; weights that moved on, or that are another network's, from
where they do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pandas as pd

from bnprobe.recording.names import NOT_JUDGED, SHIFTED, said
from bnprobe.rules.causes import cause_of
from bnprobe.rules.edits import remedy
from bnprobe.rules.merge_runs import after_sum
from bnprobe.rules.preprocessing import reported_at
from bnprobe.rules.remedies import recalibrate, recalibration
from bnprobe.rules.rule import Evidence, Finding, follows_batches
from bnprobe.rules.wording import count


def slightly(evidence: Evidence, elsewhere: Collection[str]) -> Iterator[Finding]:
    """A note where that begins; none of norms that are reported `elsewhere`."""
    limits, layers = evidence.limits, evidence.layers
    judged = layers[~layers["verdict"].isin(NOT_JUDGED) & layers["discrepancy"].notna()]
    if evidence.is_new or judged.empty or reported_at(evidence):
        return
    certain = judged[["shifted_share", "scaled_share"]].max(axis=1) > limits.surely_shifted
    moved = judged["verdict"].isin(SHIFTED) & certain
    found, first = judged[moved & (judged["discrepancy"] > limits.slight)], judged.iloc[0]
    first_matches = first["discrepancy"] < limits.slight / 2
    if found.empty or not (first_matches or moved.iloc[0]):
        return
    row = found.iloc[0] if first_matches else first
    if follows_batches(row) or cause_of(evidence, row) is not None or row["layer"] in elsewhere:
        return
    size = (
        f"up to {found['discrepancy'].max():.2g} at {count(len(found), 'norm')}, beyond sampling error in most channels (a "
        f"note from {limits.slight:g} on)."
    )
    yield (
        _from_here_on(row, first, size, after_sum(judged))
        if first_matches
        else _from_the_first_on(first, size)
    )


def _from_here_on(row: pd.Series, first: pd.Series, size: str, of_sums: str) -> Finding:
    return Finding(
        "info",
        row["layer"],
        "From this norm on the inputs match the running statistics less well, though none is beyond the thresholds.",
        f"discrepancy in mean and std together {row['discrepancy']:.2g} running σ, {first['discrepancy']:.2g} at "
        f"{said(first['layer'])}; {size}",
        f"{of_sums}The model's inputs are right, as the first norm shows. A short training leaves its statistics behind its "
        "weights by so much; so do weights that come from two files, were averaged, quantized or fine-tuned with frozen "
        f"statistics. {_measure(row)}",
        call=row["call"],
        remedy=remedy(recalibration(row)),
    )


def _from_the_first_on(first: pd.Series, size: str) -> Finding:
    return Finding(
        "info",
        first["layer"],
        "From the first norm on the inputs match the running statistics less well, though none is beyond the thresholds.",
        f"discrepancy in mean and std together {first['discrepancy']:.2g} running σ here; {size}",
        "The first norm takes the model's inputs, so see first whether they are prepared as in training: size or sampling "
        "rate, filters, compression, noise, light. If they are, the weights have moved on since the running statistics were "
        f"made. {_measure(first)}",
        call=first["call"],
        remedy=remedy(recalibration(first)),
    )


def _measure(row: pd.Series) -> str:
    return (
        "If the weights are as intended, compare the accuracy before and after re-estimating the running statistics on "
        f"training data: {recalibrate(row)}."
    )
