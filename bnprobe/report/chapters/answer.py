"""The answer: is something wrong, and what did these norms learn; made of the numbers of the network at hand."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import called, norms, unit_of
from bnprobe.report.chapters.headline import after, fresh, headline, with_guess
from bnprobe.report.chapters.per_sample import own_scale
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Headline
from bnprobe.rules.values import OVER_FEATURES
from bnprobe.rules.wording import kind_words

NEAR_ZERO = 1e-2
"""|γ| below which a channel's output hardly varies."""

CUTTING = ("batch_norm", "group_norm", "instance_norm")
"""Kinds of norms that an activation usually follows; what share of the values is positive matters there."""

STEADY = 1.15
"""Factor through depth below which a scale counts as the same."""


@dataclass(frozen=True)
class Answer:
    """The verdict, and what else is to be said in a few sentences.

    `beside` is what of that a page has to say where its lead says what there is, and its tiles and facts what was learned.
    """

    headline: Headline
    more: tuple[str, ...]
    beside: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it, the verdict first."""
        return (self.headline.text, *self.more)


def answer(recording: Recording, tables: Tables, findings: pd.DataFrame) -> Answer:
    """The answer to whether something is wrong and what was learned."""
    unit = unit_of(recording)
    first = headline(tables, findings, unit)
    new, channels = fresh(tables), tables.channels
    learned = [] if new else [*_learned(channels), *_small(channels), *_outputs(channels)]
    apart = [] if new else [*_signs(channels), *_small(channels), *_outputs(channels)]
    verdict = after(first, tables, findings, unit)
    more = (*verdict, _what_there_is(recording), " ".join(learned), *_scale(tables.layers, unit))
    first = with_guess(first, tables, recording.about.preprocessing, unit)
    return Answer(first, tuple(filter(None, more)), tuple(filter(None, (*verdict, " ".join(apart)))))


# What is there, and what was learned?


def _what_there_is(recording: Recording) -> str:
    has = norms_of(recording) + called_at(recording)
    name = called(recording.about.model)
    name = name if re.fullmatch(r"[\w.:-]+", name) else "This network"
    if recording.weights_only:
        return f"{name} has {has}. Read from the weights alone: no data were run."
    samples = count(recording.about.n_images, unit_of(recording))
    return f"{name} has {has}. Measured on {samples} {in_mode(recording)}."


def norms_of(recording: Recording) -> str:
    """How many norms there are, by their kinds where these are several."""
    layers = {record.layer: record.kind for record in recording.layers}
    kinds = Counter(layers.values())
    names = ", ".join(count(n, kind_words(kind)) for kind, n in kinds.items())
    return names if len(kinds) == 1 else f"{norms(len(layers))} ({names})"


def called_at(recording: Recording) -> str:
    """At how many places they are called, where some are called at several; else empty."""
    several = len(recording.layers) > len({record.layer for record in recording.layers})
    return f", called at {len(recording.layers):,} places" if several else ""


def in_mode(recording: Recording) -> str:
    """In which mode the norms were when they were called."""
    modes = {record.mode for record in recording.layers}
    return (
        f"in {modes.pop()} mode"
        if modes in ({"eval"}, {"train"})
        else "partly in train and partly in eval mode"
    )


def _learned(channels: pd.DataFrame) -> list[str]:
    """What γ and β were trained to."""
    gamma = channels["gamma"]
    gamma = gamma[gamma.abs() < np.inf]
    if not len(gamma):
        return []
    if _untouched(channels):
        beta = " and every β is 0" if channels["beta"].notna().any() else ""
        return [f"Scale and shift were not trained: every γ is 1{beta}."]
    signs = "".join(f"; {words.removesuffix('.')}" for words in _signs(channels))
    return [f"A typical |γ| is {number(float(gamma.abs().median()), 2)}{signs}."]


def _untouched(channels: pd.DataFrame) -> bool:
    """Whether every γ is 1 and every β 0."""
    return bool((channels["gamma"].dropna() == 1).all() and not (channels["beta"].fillna(0) != 0).any())


def _signs(channels: pd.DataFrame) -> list[str]:
    """In how many channels γ is negative."""
    gamma = channels["gamma"].dropna()
    negative = int((gamma < 0).sum())
    return (
        [f"γ is negative in {count(negative, 'channel')} ({share(negative / len(gamma))})."]
        if negative
        else []
    )


def _small(channels: pd.DataFrame) -> list[str]:
    """How many channels have a γ near 0; what follows a norm over features makes up for that."""
    small = channels[(channels["gamma"].abs() < NEAR_ZERO) & ~channels["kind"].isin(OVER_FEATURES)]
    if small.empty or _untouched(channels):
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
    scale = own_scale(layers)
    if not scale or scale.n < 2:
        return []
    kinds = set(scale.known["kind"])
    kind = kind_words(kinds.pop()) if len(kinds) == 1 else "per-sample norm"
    sentence = f"From the first {kind} to the last, the scale of the inputs {_course(*scale.ends)}"
    varies = scale.varies(unit)
    return [f"{sentence}{f'; it differs {varies}' if varies else ''}."]


def _course(first: float, last: float) -> str:
    ends = f"{number(first, 2)} to {number(last, 2)}"
    if not (first > 0 and last > 0):
        return f"goes from {ends}"
    factor = max(last / first, first / last)
    if factor < STEADY:
        return f"stays about the same ({ends})"
    return f"{'grows' if last > first else 'shrinks'} by a factor of {number(factor, 2)}, from {ends}"
