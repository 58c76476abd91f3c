"""Rules about the precision of parameters: updates too small to be stored."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.terms import EPSILONS
from bnprobe.rules.edits import InFloat32, remedy
from bnprobe.rules.remedies import module
from bnprobe.rules.rule import Evidence, Finding, Rule, indices
from bnprobe.rules.wording import out_of

HALVES = ("float16", "bfloat16")

STUCK = 0.5
"""Share of a layer's γ at exactly 1 from which they are stuck: of trained float32 values none is."""


def stuck(row: pd.Series, channels: pd.DataFrame) -> pd.DataFrame:
    """Channels whose γ is exactly 1 in half precision although the layer is trained: a gradient arrives, or β moved."""
    if row["parameter_dtype"] not in HALVES:
        return channels[:0]
    at_one = channels[channels["gamma"] == 1]
    if len(at_one) < STUCK * len(channels):
        return channels[:0]
    if row["n_backward"] > 0 and row["learns"] in ("both", "γ"):
        return at_one[at_one["grad_gamma"].abs() > 0]
    # without a gradient a value near 1 may have been rounded when the file was written
    whole = len(at_one) == len(channels)
    return at_one if whole and (channels["beta"].fillna(0) != 0).any() else channels[:0]


def step_words(dtype: str) -> str:
    """How coarse numbers of this type are near 1."""
    return f"near 1 the next number of {dtype} is {EPSILONS[dtype]:.2g} away"


def below_step(evidence: Evidence) -> Iterator[Finding]:
    """γ that cannot leave 1, because every update is smaller than a step of its type."""
    for row, channels in evidence.sites_with(evidence.channels["gamma"] == 1):
        found = stuck(row, channels)
        if row["call"] or not len(found):
            continue
        dtype = row["parameter_dtype"]
        arrives = "a gradient arrives at them" if row["n_backward"] > 0 else "β was trained"
        yield Finding(
            "warning",
            row["layer"],
            f"γ is stored in {dtype} and cannot leave 1: its updates are smaller than a step there, and are rounded away.",
            f"γ is exactly 1 in {out_of(found, channels)}, although {arrives}; {step_words(dtype)}.",
            f"Keep the weights of norms, or master copies of all weights, in float32, and train on: "
            f"`{module(row['layer'])}.float()`, under torch.autocast(dtype=torch.bfloat16). Outputs stay until γ learns.",
            indices(found),
            row["call"],
            remedy(InFloat32(row["layer"])),
        )


RULES = (
    Rule(
        "updates-below-step",
        "Can γ take the updates that it gets?",
        "https://github.com/vllm-project/speculators/pull/765, https://github.com/fla-org/flame/issues/47",
        "γ in float32, or less than half of a layer's γ at exactly 1",
        below_step,
        edits=(InFloat32,),
    ),
)
