"""Rules about channels that pass nothing on: always below zero before a ReLU, or shrunk by weight decay."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import said
from bnprobe.rules.edits import Recalibrate, Reinitialize, remedy
from bnprobe.rules.remedies import (
    CARRY_BETA,
    REINITIALIZE,
    made_new,
    made_new_edit,
    module,
    path,
    recalibrate,
    recalibration,
)
from bnprobe.rules.rule import Evidence, Finding, Rule, indices, share_severity
from bnprobe.rules.swapped import scaled_by_beta
from bnprobe.rules.thresholds import DEFAULT, Limits
from bnprobe.rules.wording import activation, eps_of, out_of, some

RELUS = ("relu", "relu6")
"""Activations whose output is 0 for everything negative."""


def dead(evidence: Evidence) -> Iterator[Finding]:
    """Batch norm channels whose output cannot become positive, before a ReLU or what may be one."""
    limits = evidence.limits
    k, exchanged = limits.dead_sigmas, scaled_by_beta(evidence)
    for row, channels in evidence.sites_with(_reach(evidence.channels, k) < limits.dead_reach):
        known = row["follows"] in RELUS
        if row["kind"] != "batch_norm" or not (known or row["follows"] == "unknown") or _all_zero(channels):
            continue
        if row["layer"] in exchanged:
            continue
        found = channels[["channel", "gamma", "beta"]][
            (_reach(channels, k) < limits.dead_reach) & ~(channels["fires"] > 0)
        ]
        if len(found):
            yield Finding(
                "critical"
                if known and len(found) == len(channels)
                else share_severity(found, channels, limits),
                row["layer"],
                f"{some(found, channels)} are dead: the {activation(row['follows'])} after this norm always outputs 0 "
                "for them."
                if known
                else f"{some(found, channels)} can never be positive: if a ReLU follows this norm, they are dead.",
                f"β + {k:g}|γ| < {limits.dead_reach:g} in {_with_eps(found, channels, _alone(found, k, limits), row)}.",
                ("" if known else "Check with --arch NAME to see what follows; if it is a ReLU, do this. ")
                + (
                    "Neither values nor gradients pass through this layer. "
                    if len(found) == len(channels)
                    else "They add nothing but 0: remove them with the filters before and the weights that read them, and "
                    "no output changes. Under a depthwise convolution the norm after it turns this 0 into a constant: add "
                    "the constant's effect to the bias of the layer that reads it. "
                )
                + "To keep them alive in the next training, lower the initial learning rate or the weight decay on γ and β. "
                + f"{REINITIALIZE}{made_new(row, found, channels)}.",
                indices(found),
                row["call"],
                remedy(made_new_edit(row, found, channels)),
            )


def _reach(channels: pd.DataFrame, k: float) -> pd.Series:
    """The largest output that is to be expected; a constant input that outputs exactly 0 is reported as a constant."""
    beta = channels["beta"].fillna(0)
    return beta + k * channels["gamma_effective"].where(beta < 0, channels["gamma"].fillna(1).abs())


def _alone(found: pd.DataFrame, k: float, limits: Limits) -> pd.Series:
    """Those that are dead even if γ counts in full."""
    return found["beta"].fillna(0) + k * found["gamma"].fillna(1).abs() < limits.dead_reach


def _with_eps(found: pd.DataFrame, channels: pd.DataFrame, alone: pd.Series, row: pd.Series) -> str:
    """How many channels, and of how many this holds only with what eps leaves of γ."""
    n = int((~alone).sum())
    if not n:
        return out_of(found, channels)
    which = f", in {n} of them" if n < len(found) else ","
    return (
        f"{out_of(found, channels)}{which} with |γ| √(running_var / (running_var + eps)) for |γ|, as their inputs hardly "
        f"vary ({eps_of(row)})"
    )


def _all_zero(channels: pd.DataFrame) -> bool:
    """γ and β exactly 0 everywhere: a branch that was initialized to 0, which is not dead."""
    return bool(((channels["gamma"] == 0) & (channels["beta"].fillna(0) == 0)).all())


def decayed(evidence: Evidence) -> Iterator[Finding]:
    """Filters that weight decay has shrunk because no gradient has reached them for long."""
    limits = evidence.limits
    for row, channels in evidence.sites_with(evidence.channels["gamma_effective"] < limits.constant_gamma):
        length = channels["filter_norm"]
        typical = float(length.median())
        small = length < limits.decayed_filter * typical
        found = channels[["channel", "gamma", "filter_norm"]][
            small & (length > 0) & (channels["gamma_effective"] < limits.constant_gamma)
        ]
        if len(found):
            most = float(found["filter_norm"].max())
            small_gamma = found["gamma"].abs() < limits.constant_gamma
            yield Finding(
                share_severity(found, channels, limits),
                row["layer"],
                "The filters of some channels have shrunk almost to zero, as under weight decay that no gradient resists.",
                f"|γ| < {limits.constant_gamma:g} in {_with_eps(found, channels, small_gamma, row)}; their filters in "
                f"{said(row['feeder'])} have a length of at most {most:.2g}, {_percent(most / typical)} of the layer's "
                f"median (threshold {limits.decayed_filter:.0%}).",
                f"Little is left of them but β. {CARRY_BETA} " + _reinitialized_filters(row, found, channels),
                indices(found),
                row["call"],
                remedy(_new_filters(row, found, channels)),
            )


def pruned(evidence: Evidence) -> Iterator[Finding]:
    """Filters that were set to 0, before a norm that subtracts the mean of what they gave."""
    limits = evidence.limits
    for row, channels in evidence.sites_with(evidence.channels["filter_norm"] == 0):
        sigma = (channels["running_var"] + row["eps"]) ** 0.5
        away = (channels["running_mean"] - channels["filter_bias"].fillna(0)).abs() / sigma
        found = channels[
            (channels["filter_norm"] == 0) & (channels["running_var"] > row["eps"]) & (away > limits.shift)
        ]
        if len(found) and row["normalized_by"] != "batch":
            yield Finding(
                share_severity(found, channels, limits),
                row["layer"],
                "The filters of some channels are all 0, but the running statistics are those of before: the outputs are "
                "constants that nothing was trained on.",
                f"filters in {said(row['feeder'])} of length 0 for {out_of(found, channels)}, whose running means are up to "
                f"{float(away[found.index].max()):.2g} running σ off (threshold {limits.shift:g}).",
                "Filters that were pruned need new running statistics: train on with them at 0, or re-estimate the running "
                f"statistics, and compare the accuracy before and after: {recalibrate(row)}.",
                indices(found),
                row["call"],
                remedy(recalibration(row)),
            )


def decayed_or_pruned(evidence: Evidence) -> Iterator[Finding]:
    """Filters of which nothing or almost nothing is left."""
    yield from decayed(evidence)
    yield from pruned(evidence)


def _percent(part: float) -> str:
    """A share that is not rounded to 0."""
    return f"{part:.1%}" if part >= 0.001 else "under 0.1%"


def _reinitialized_filters(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> str:
    """Random filters of the layer's own size, a new scale, and statistics that do not amplify what these put out."""
    filters = f"w = {module(row['feeder'])}.weight.data; w[at] = torch.randn_like(w[at]) * w.std(); "
    stored = "; n.running_mean[at] = 0; n.running_var[at] = 1" if row["kind"] == "batch_norm" else ""
    return f"{REINITIALIZE}{made_new(row, found, channels, filters, stored)}."


def _new_filters(row: pd.Series, found: pd.DataFrame, channels: pd.DataFrame) -> Reinitialize:
    """The same as an edit."""
    return made_new_edit(row, found, channels, path(str(row["feeder"])), row["kind"] == "batch_norm")


RULES = (
    Rule(
        "channels-dead",
        "Can every channel become positive before its ReLU?",
        "Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"every β + {DEFAULT.dead_sigmas:g}|γ| of at least {DEFAULT.dead_reach:g}, or a positive output on the data",
        dead,
        edits=(Reinitialize,),
    ),
    Rule(
        "filters-decayed",
        "Do all filters before the norm still learn?",
        "van Laarhoven 2017, arXiv:1706.05350; Mehta, Kim & Theobalt 2019, arXiv:1811.12495",
        f"filters longer than {DEFAULT.decayed_filter:.0%} of the layer's median, or |γ| of at least "
        f"{DEFAULT.constant_gamma:g}",
        decayed_or_pruned,
        edits=(Reinitialize, Recalibrate),
    ),
)
