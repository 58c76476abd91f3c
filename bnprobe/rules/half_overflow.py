"""The rule about numbers that half precision cannot hold, stored or passing through."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import VECTORS
from bnprobe.recording.terms import MANY_EPS, REACH_SIGMAS
from bnprobe.rules.edits import Rescale, remedy
from bnprobe.rules.preprocessing import reported_at
from bnprobe.rules.remedies import path, rescaled
from bnprobe.rules.rule import Evidence, Finding, Rule, indices
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import eps_of, number, out_of

WELL_WITHIN = 64.0
"""Inputs of this size have a variance that half precision holds, too."""

SMALLEST_HALF = 6.1e-5
"""Smallest number that half precision holds to its full digits."""

OTHER_DATA = (
    "The running statistics fit easily, so look at the inputs first: preprocess them as in training (range, mean, std), and "
    "look for samples with values far beyond the others. If they are as in training, the preceding weights have grown since "
    "the running statistics were updated (too large a step): go back to a checkpoint from before that."
)


def overflows_half(evidence: Evidence) -> Iterator[Finding]:
    """Numbers of a layer that half precision cannot hold."""
    top = evidence.limits.half_overflow
    beyond_any = np.logical_or.reduce([_is_beyond(evidence.channels[name], top) for name in VECTORS])
    far = evidence.layers["largest_input"] > top / evidence.limits.half_headroom
    for row, channels in evidence.sites_with(pd.Series(beyond_any, evidence.channels.index), far):
        beyond = {name: _is_beyond(channels[name], top) for name in VECTORS}
        vectors = [name for name, values in beyond.items() if values.any()]
        found = channels[np.logical_or.reduce(list(beyond.values()))]
        # without data the largest input is 6 standard deviations from the mean, which is headroom enough
        measured = row["n_values"] > 0
        highest = top / (evidence.limits.half_headroom if measured else 1.0)
        if not vectors and not highest < row["largest_input"] < np.inf:
            continue
        stored = (
            f"{' and '.join(VECTORS[name] for name in vectors)} of {out_of(found, channels)} above {number(top, 5)}"
            if vectors
            else ""
        )
        reach = (
            f"largest input {number(row['largest_input'])} "
            + (f"(threshold {number(highest, 5)})" if measured else "expected from the running statistics")
            + f", half precision ends at {number(top, 5)}"
            if row["largest_input"] > highest
            else ""
        )
        or_smaller, edit = _smaller(row, channels, evidence.limits)
        of_data = not vectors and _data_only(row, channels, evidence.limits)
        if of_data and reported_at(evidence):
            continue  # it follows from inputs that are too large, which are reported where they enter
        beyond_now = vectors or row["largest_input"] > top
        subject = "On these data, the input of this layer" if of_data else "This layer"
        yield Finding(
            # what running statistics of a few batches do not normalize grows from norm to norm
            "info" if of_data and evidence.is_new else "warning",
            row["layer"],
            f"{subject} does not fit into half precision: it overflows to infinity."
            if beyond_now
            else f"{subject} only just fits into half precision: a slightly larger input overflows to infinity.",
            f"{'; '.join(filter(None, (stored, reach)))}.",
            OTHER_DATA
            if of_data
            else "Keep this norm and the layer before it in float32 or bfloat16 (autocast does so for the norm, not "
            f"for its input){or_smaller}",
            indices(found),
            row["call"],
            None if of_data else remedy(edit),
        )


def _data_only(row: pd.Series, channels: pd.DataFrame, limits: Limits) -> bool:
    """Whether the running statistics fit well, and the data vary far more than they say."""
    with np.errstate(all="ignore"):
        reach = float(
            (channels["running_mean"].abs() + REACH_SIGMAS * np.sqrt(channels["running_var"])).max()
        )
    return bool(
        row["var_ratio_median"] > limits.variance_ratio
        and reach < limits.half_overflow / limits.half_headroom
    )


def _smaller(row: pd.Series, channels: pd.DataFrame, limits: Limits) -> tuple[str, Rescale | None]:
    """Weights before the norm so small that its inputs, and their variance, fit; ends the sentence where none are known."""
    with np.errstate(invalid="ignore"):
        largest = max(float(row["largest_input"]), float(np.sqrt(channels["running_var"].max())))
    if not row["feeder"] or channels["running_mean"].isna().all() or not 0 < largest < np.inf:
        return ".", None
    factor = float(2.0 ** -np.ceil(np.log2(largest / WELL_WITHIN)))
    live = channels[
        (channels["gamma"].fillna(1).abs() >= limits.constant_gamma) & (channels["running_var"] > 0)
    ]
    least = float(live["running_var"].min()) * factor**2
    if least < SMALLEST_HALF:
        return (
            f". Scaling down the preceding weights does not help: the smallest running_var would fall to {least:.2g}, and "
            f"{eps_of(row)}.",
            None,
        )
    with_eps = least < MANY_EPS * row["eps"]
    smaller = Rescale(path(str(row["feeder"])), row["layer"], factor, with_eps)
    return (
        f", or scale down the preceding weights, which leaves the output of the norm unchanged: {rescaled(smaller)}.",
        smaller,
    )


def _is_beyond(values: pd.Series, top: float) -> pd.Series:
    """Finite and out of reach: what is not finite has a rule of its own."""
    return (values.abs() > top) & (values.abs() < np.inf)


RULES = (
    Rule(
        "half-overflow",
        "Does the layer fit into half precision?",
        "https://github.com/pytorch/pytorch/issues/88474, https://github.com/pytorch/pytorch/issues/90342",
        f"vectors and inputs below {DEFAULT.half_overflow:g}",
        overflows_half,
        edits=(Rescale,),
    ),
)
