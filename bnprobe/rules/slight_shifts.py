"""A mismatch below the thresholds that begins inside the network, where no other is reported.

Inputs that are a little different show at the first norm as well; weights that moved on, or that are another network's, from
where they do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from bnprobe.recording.names import NOT_JUDGED, SHIFTED, said
from bnprobe.rules.causes import cause_of
from bnprobe.rules.edits import remedy
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
    found = judged[judged["verdict"].isin(SHIFTED) & certain & (judged["discrepancy"] > limits.slight)]
    first = judged.iloc[0]
    if found.empty or not first["discrepancy"] < limits.slight / 2:
        return
    row = found.iloc[0]
    if follows_batches(row) or cause_of(evidence, row) is not None or row["layer"] in elsewhere:
        return
    yield Finding(
        "info",
        row["layer"],
        "From this norm on the inputs match the running statistics less well, though none is beyond the thresholds.",
        f"discrepancy in mean and std together {row['discrepancy']:.2g} running σ, {first['discrepancy']:.2g} at "
        f"{said(first['layer'])}; up to {found['discrepancy'].max():.2g} at {count(len(found), 'norm')}, beyond sampling "
        f"error in most channels (a note from {limits.slight:g} on).",
        "The model's inputs are right, as the first norm shows. A short training leaves its statistics behind its weights "
        "by so much; so do weights that come from two files, were averaged, quantized or fine-tuned with frozen statistics. "
        "If the weights are as intended, compare the accuracy before and after re-estimating the running statistics on "
        f"training data: {recalibrate(row)}.",
        call=row["call"],
        remedy=remedy(recalibration(row)),
    )
