"""The answer: is something wrong, and what did these norms learn; made of the numbers of the network at hand."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import called, norms, unit_of
from bnprobe.report.chapters.headline import begun, opening, untrained
from bnprobe.report.numbers import count, number, share
from bnprobe.report.vocabulary import KINDS

NEAR_ZERO = 1e-2
"""|γ| below which a channel's output hardly varies."""

CUTTING = ("batch_norm", "group_norm", "instance_norm")
"""Kinds of norms that an activation usually follows; what share of the values is positive matters there."""

STEADY = 1.15
"""Factor through depth below which a scale counts as the same."""


def answer(recording: Recording, tables: Tables, findings: pd.DataFrame) -> list[str]:
    """The answer in a few sentences, the verdict first."""
    fresh = untrained(tables) or begun(tables)
    sentences = [
        *opening(tables, findings, unit_of(recording)),
        _what_there_is(recording),
        "" if fresh else " ".join([*_learned(tables.channels), *_outputs(tables.channels)]),
        *_scale(tables.layers, unit_of(recording)),
    ]
    return [sentence for sentence in sentences if sentence]


# What is there, and what was learned?


def _what_there_is(recording: Recording) -> str:
    layers = {record.layer: record.kind for record in recording.layers}
    kinds = Counter(layers.values())
    names = ", ".join(count(n, KINDS.get(kind, kind)) for kind, n in kinds.items())
    has = names if len(kinds) == 1 else f"{norms(len(layers))} ({names})"
    if len(recording.layers) > len(layers):
        has += f", called at {len(recording.layers):,} places"
    name = called(recording.about.model)
    name = name if re.fullmatch(r"[\w.:-]+", name) else "This network"
    if recording.weights_only:
        return f"{name} has {has}. Read from the weights alone: no data were run."
    modes = {record.mode for record in recording.layers}
    mode = (
        f"in {modes.pop()} mode"
        if modes in ({"eval"}, {"train"})
        else "partly in train and partly in eval mode"
    )
    samples = count(recording.about.n_images, unit_of(recording))
    return f"{name} has {has}. Measured on {samples} {mode}."


def _learned(channels: pd.DataFrame) -> list[str]:
    """What γ and β were trained to."""
    gamma = channels["gamma"].dropna()
    if not len(gamma):
        return []
    if (gamma == 1).all() and not (channels["beta"].fillna(0) != 0).any():
        beta = " and every β is 0" if channels["beta"].notna().any() else ""
        return [f"Scale and shift were not trained: every γ is 1{beta}."]
    negative = int((gamma < 0).sum())
    size = f"A typical |γ| is {number(float(gamma.abs().median()), 2)}"
    signs = (
        f"; γ is negative in {count(negative, 'channel')} ({share(negative / len(gamma))})"
        if negative
        else ""
    )
    return [f"{size}{signs}.", *_switched_off(channels[channels["gamma"].abs() < NEAR_ZERO])]


def _switched_off(small: pd.DataFrame) -> list[str]:
    if small.empty:
        return []
    one, n_norms = len(small) == 1, len(small[["layer", "call"]].drop_duplicates())
    about = "β" if small["beta"].notna().all() else "0"
    return [
        f"{count(len(small), 'channel')} in {norms(n_norms)} {'has' if one else 'have'} |γ| below {NEAR_ZERO:g}: "
        f"{'its output hardly varies' if one else 'their outputs hardly vary'} about {about}."
    ]


def _outputs(channels: pd.DataFrame) -> list[str]:
    """How often outputs are positive, where that matters."""
    known = channels[channels["fires"].notna() & channels["kind"].isin(CUTTING)]
    if known.empty:
        return []
    never = int((known["fires"] == 0).sum())
    rest = (
        f"; {never:,} of {len(known):,} never {'does' if never == 1 else 'do'}"
        if never
        else ", and every channel was positive at least once"
    )
    return [
        f"A typical channel outputs a positive value {share(float(known['fires'].median()))} of the time{rest}."
    ]


def _scale(layers: pd.DataFrame, unit: str) -> list[str]:
    """How the scale of the inputs runs through norms that use each sample's own statistics."""
    known = layers[layers["own_sd"].notna()]
    if len(known) < 2:
        return []
    first, last = float(known["own_sd"].iloc[0]), float(known["own_sd"].iloc[-1])
    kinds = set(known["kind"])
    kind = KINDS.get(kinds.pop(), "norm") if len(kinds) == 1 else "per-sample norm"
    sentence = f"From the first {kind} to the last, the scale of the inputs {_course(first, last)}"
    spread = (
        median(known["own_log_var_sd"].to_numpy()) / 2
    )  # half the log of the variance is that of the scale
    varies = f"; it differs by about {share(spread)} between {unit}s" if 0 < spread < 0.5 else ""
    return [f"{sentence}{varies}."]


def _course(first: float, last: float) -> str:
    ends = f"{number(first, 2)} to {number(last, 2)}"
    if not (first > 0 and last > 0):
        return f"goes from {ends}"
    factor = max(last / first, first / last)
    if factor < STEADY:
        return f"stays about the same ({ends})"
    return f"{'grows' if last > first else 'shrinks'} by a factor of {number(factor, 2)}, from {ends}"
