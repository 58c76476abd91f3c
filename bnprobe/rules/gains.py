"""Rules about gains alone: they need no data, so they serve `check`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.recording.names import WEIGHTS_ONLY, said
from bnprobe.rules.by_hand import ANOTHER_FILE
from bnprobe.rules.rule import Evidence, Finding, Rule, indices
from bnprobe.rules.thresholds import DEFAULT
from bnprobe.rules.values import DECAYED, OVER_FEATURES
from bnprobe.rules.wording import count, out_of
from bnprobe.stats.around_zero import around_zero

FEWEST_NORMS = 3
"""Norms below which a share of them says nothing."""

WITHOUT_SHIFT = ("rms_norm", "unknown_norm")
"""Kinds of norms that may multiply by 1 + w."""

APART = 100.0
"""How many times larger the other gains are than those that were decayed."""


def convention(evidence: Evidence) -> Iterator[Finding]:
    """Gains that were stored as γ − 1 and are used as γ."""
    learned = _learned(evidence)
    limit = evidence.limits.negative_gains
    found = learned[learned["gamma_negative"] > limit]
    if len(learned) < FEWEST_NORMS or 2 * len(found) <= len(learned) or evidence.is_new:
        return  # in the first steps of norms that begin at 0, either sign is as frequent
    yield Finding(
        "critical",
        str(found.iloc[0]["layer"]),
        "γ is used without the 1 that it was stored without: these norms multiply by 1 + γ.",
        f"more than {limit:.0%} of γ are negative in {len(found)} of {count(len(learned), 'norm')} (up to "
        f"{found['gamma_negative'].max():.0%}); trained networks have that in a norm or two.",
        "Use the class of norm that the weights were trained with, or add 1 to the gains, once: "
        f"`[model.get_submodule(name).weight.data.add_(1) for name in {list(map(str, learned['layer']))}]`. If results get "
        "worse, the weights are right as they are.",
    )


def not_as_stored(evidence: Evidence) -> Iterator[Finding]:
    """Gains that lack their 1, by their signs, or by where they lie; said once."""
    found = [*convention(evidence), *stored_without(evidence)]
    yield from found[:1]


def stored_without(evidence: Evidence) -> Iterator[Finding]:
    """Gains around 0 in a file that is run as it is stored: other files with such gains were read with the 1."""
    if evidence.is_new:
        return
    rows = evidence.layers
    stored = rows[
        (rows["mode"] == WEIGHTS_ONLY) & rows["kind"].isin(WITHOUT_SHIFT) & (rows["gamma_offset"] == 0)
    ]
    gains = evidence.channels[
        evidence.channels["layer"].isin(stored["layer"]) & evidence.channels["beta"].isna()
    ]
    yield from _without_the_one(gains, "gamma", "this file")


def in_gguf(evidence: Evidence) -> Iterator[Finding]:
    """The same of the side of a comparison that is a GGUF file."""
    if evidence.gguf:
        side = evidence.gguf.lower()
        gains = evidence.channels[evidence.channels[f"beta_{side}"].isna()]
        yield from _without_the_one(gains, f"gamma_{side}", f"{evidence.gguf}, a GGUF file")


def _without_the_one(gains: pd.DataFrame, column: str, where: str) -> Iterator[Finding]:
    norms = [(name, of[column].to_numpy(float)) for name, of in gains.groupby("layer", sort=False)]
    norms = [(name, gamma) for name, gamma in norms if not np.isnan(gamma).any()]
    learned = any(gamma.any() for _, gamma in norms)
    if len(norms) < FEWEST_NORMS or not learned or not around_zero([gamma for _, gamma in norms]):
        return
    negative = [float((gamma < 0).mean()) for _, gamma in norms]
    yield Finding(
        "critical",
        str(norms[0][0]),
        f"γ is stored without its 1 in {where}, which is run as it is stored.",
        f"γ lies around 0 in most of {count(len(norms), 'norm')}, and up to {max(negative):.0%} of a norm's are negative.",
        "Norms that multiply by 1 + w (Gemma) need the sum in a GGUF file: add 1 when converting, as convert_hf_to_gguf.py "
        "does for the architectures that it knows.",
    )


def decayed(evidence: Evidence) -> Iterator[Finding]:
    """Single gains that weight decay has brought to nothing."""
    small = evidence.channels["gamma"].abs() < evidence.limits.decayed_gain
    for row, channels in evidence.sites_with(small & evidence.channels["kind"].isin(OVER_FEATURES)):
        size = channels["gamma"].abs()
        found, others = (
            channels[size < evidence.limits.decayed_gain],
            size[size >= evidence.limits.decayed_gain],
        )
        if row["call"] or others.empty or not others.median() > APART * evidence.limits.decayed_gain:
            continue
        if 2 * len(found) >= len(channels):
            continue
        yield Finding(
            "info",
            row["layer"],
            "Some gains were decayed to nothing: their dimensions do not get past this norm.",
            f"|γ| is at most {size[found.index].max():.2g} in {out_of(found, channels)}; half of the others are above "
            f"{others.median():.2g}.",
            "Nothing: weight decay does this to dimensions that nobody reads. They can be removed from what follows.",
            indices(found),
            row["call"],
        )


def shrunk(evidence: Evidence) -> Iterator[Finding]:
    """Gains of the whole network that are far below their initial 1."""
    learned = _learned(evidence)
    found = learned[learned["gamma_abs_median"] < DECAYED]
    # gains that were stored without their 1 have a rule of their own
    if len(learned) < FEWEST_NORMS or 2 * len(found) <= len(learned) or any(convention(evidence)):
        return
    least = found.sort_values("gamma_abs_median", kind="stable").iloc[0]
    yield Finding(
        "info",
        str(found.iloc[0]["layer"]),
        "In most norms γ is far below its initial 1, as under weight decay.",
        f"the typical |γ| is below {DECAYED:g} in {len(found)} of {count(len(learned), 'norm')} (least "
        f"{least['gamma_abs_median']:.2g}, at {said(least['layer'])}).",
        "To use the network, nothing: the weights that follow were trained with these γ. Before training on, leave norms "
        "out of weight decay if it acts on them, by a group of parameters with weight_decay=0.",
    )


def _learned(evidence: Evidence) -> pd.DataFrame:
    """The norms over features, each once, whose γ is known and not mostly 0, as a branch begins."""
    layers = evidence.layers[(evidence.layers["call"] == 0) & evidence.layers["kind"].isin(OVER_FEATURES)]
    return layers[layers["gamma_abs_median"] > 0]


def shrunk_or_decayed(evidence: Evidence) -> Iterator[Finding]:
    """What weight decay leaves, of single gains or of all."""
    yield from decayed(evidence)
    yield from shrunk(evidence)


RULES = (
    Rule(
        "gain-convention",
        "Is γ used as it was stored?",
        "https://github.com/ggml-org/llama.cpp/pull/5631, https://github.com/ml-explore/mlx-lm/issues/1623",
        f"at most {DEFAULT.negative_gains:.0%} of negative γ in half of the layer and RMS norms",
        not_as_stored,
        by_hand=ANOTHER_FILE,
    ),
    Rule(
        "gains-decayed",
        "Is every gain more than nothing?",
        "van Laarhoven 2017, arXiv:1706.05350; arXiv:2605.26895",
        f"every |γ| of a layer or RMS norm at least {DEFAULT.decayed_gain:g}, and a typical one of {DECAYED:g} in half of "
        "the norms",
        shrunk_or_decayed,
        by_hand="it is a fact about the network, and nothing is to be changed",
    ),
)
