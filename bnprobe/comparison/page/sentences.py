"""The sentences of a comparison: what was compared, and what changed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.comparison import (
    Differences,
    DifferenceSite,
    What,
    difference_sites,
    first_beyond_noise,
    first_difference,
    what,
)
from bnprobe.comparison.page.broken import broken
from bnprobe.comparison.significance import ROUNDING
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import named
from bnprobe.report.numbers import count, number, share
from bnprobe.rules import Limits

FEW_IMAGES = 30
STORED = ("running", "affine")
"""What can be compared where no data went through one side."""


def answer(
    a: Recording, b: Recording, tables: Differences, findings: pd.DataFrame, limits: Limits
) -> list[str]:
    """What changed, in a few sentences, the most important one first."""
    layers = tables.layers
    about = what(layers, tables.channels)
    if about.n_identical == about.n_sites:
        alone = " What only one side has is listed below." if len(tables.unread) else ""
        return [
            f"Nothing changed: {_of(about.n_sites)} hold the same numbers on both sides, to the last bit.{alone}"
        ]
    wrong = broken(layers)
    sentences = [
        *wrong,
        "" if wrong and _agrees(layers) else _where(layers, about, limits),
        _kind(a, b, about),
        *_sure(tables),
        *_stored(layers, about),
        _rules(findings),
    ]
    return [sentence for sentence in [*sentences, *_cautions(a, b, tables)] if sentence]


def _of(n: int) -> str:
    return "the one common norm" if n == 1 else f"all {n:,} common norms"


def _where(layers: pd.DataFrame, about: What, limits: Limits) -> str:
    """The one sentence: from where on the two differ, where they part, and by how much."""
    known = list(difference_sites(layers))
    if not known:
        return (
            "Nothing could be compared: the sides store different things, and data went through one at most."
        )
    first = next((place for place in known if place.gap > ROUNDING), None)
    if first is None:
        only = layers[layers["filters_differ"]]
        if len(only):
            return (
                f"The norms are the same; the weights before {count(len(only), 'norm')} differ, first before "
                f"{named(only.iloc[0])}."
            )
        if about.same_weights and known[0].aspect in STORED:
            return f"Nothing that both sides store differs: {_of(about.n_sites)} agree to the last bit."
        return "The two differ by rounding only."
    # of the same images no choice of images makes a difference
    sure, found = (
        first if about.same_inputs else first_beyond_noise(layers),
        first_difference(layers, limits.gap),
    )
    largest = max(known, key=lambda place: place.gap)
    same = first[:3] != known[0][:3]
    if sure is None:
        return _sentence(f"the choice of images explains all that differs: at most {_at(largest)}")
    if same and sure[:3] == first[:3]:
        text = f"the two are the same up to {sure.words}, where they are {_gap(sure)} apart"
    else:
        text = f"the two differ from {sure.words} on, where they are {_gap(sure)} apart"
        text = f"{_still_same(known, first)}; {text}" if same else text
    if found is None:
        text += f"; nowhere do they reach {limits.gap:g} σ"
    elif found[:3] != sure[:3]:
        text += f", and part at {found.words}, with {_gap(found)}{_before(known, found)}"
    if largest[:3] not in (sure[:3], found and found[:3]):
        text += f"; the largest gap is {_at(largest)}"
    return _sentence(text)


def _still_same(known: list[DifferenceSite], first: DifferenceSite) -> str:
    """The last place that is the same, and that what follows it may be the choice of images."""
    before = known[[place[:3] for place in known].index(first[:3]) - 1]
    return (
        f"the two are the same up to and with {before.words}, and {_gap(first)} apart at {first.words}, which the "
        "choice of images explains"
    )


def _agrees(layers: pd.DataFrame) -> bool:
    """Whether no gap that can be measured is more than rounding: then what cannot be measured is all that differs."""
    same = all(place.gap <= ROUNDING for place in difference_sites(layers))
    return same and not layers["filters_differ"].any()


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _before(known: list[DifferenceSite], found: DifferenceSite) -> str:
    """How far apart the place before is."""
    at = [place[:3] for place in known].index(found[:3])  # a noise that is not known is not equal to itself
    before = known[at - 1]
    return f" (at {before.words} it is {number(before.gap, 2)} σ)" if before.gap > ROUNDING else ""


def _gap(place: DifferenceSite) -> str:
    return f"{number(place.gap, 2)} {'σ' if place.aspect in ('pre', 'running') else 'of its layer’s σ'}"


def _at(place: DifferenceSite) -> str:
    return f"{_gap(place)}, at {place.words}"


def _kind(a: Recording, b: Recording, about: What) -> str:
    """What is compared, as far as the numbers tell."""
    filters = f"; the weights before {count(about.n_filters, 'norm')} differ" if about.n_filters else ""
    return f"{_weights(about)}{filters}; {_inputs(a, b, about)}."


def _weights(about: What) -> str:
    of = f"of {about.n_sites} norms"
    if about.same_weights:
        return "What the norms store is the same on both sides"
    if not about.n_affine:
        return f"γ and β are the same on both sides, the running statistics differ in {about.n_running} {of}"
    running = (
        f"the running statistics in {about.n_running}"
        if about.n_running
        else "the running statistics nowhere"
    )
    return f"γ and β differ in {about.n_affine} {of}, {running}"


def _inputs(a: Recording, b: Recording, about: What) -> str:
    if about.same_inputs is None:
        empty = [name for name, side in (("A", a), ("B", b)) if side.weights_only]
        return f"no data went through {' and '.join(empty) or 'the first of them'}"
    modes = (
        f"; {count(about.n_modes, 'norm')} used running statistics on one side and the batch on the other"
        if about.n_modes
        else ""
    )
    if about.same_inputs:
        return f"the first norm received the same numbers, so both saw the same images{modes}"
    return f"the first norm received different numbers, so the images or the weights before it differ{modes}"


def _sure(tables: Differences) -> list[str]:
    """How many channels surely changed."""
    channels, layers = tables.channels, tables.layers
    tested = channels["pre_shift_q"].notna() | channels["pre_ratio_q"].notna()
    if not tested.any():
        return []
    n, total = int(channels["pre_changed"].sum()), int(tested.sum())
    text = f"What enters changed surely (q < 0.01) in {n:,} of {count(total, 'channel')} ({share(n / total)})"
    w1 = layers["pre_w1_median"].dropna()
    if len(w1):
        text += f"; by their histograms, inputs typically moved by {number(float(w1.median()), 2)} σ"
    fires = layers["fires_change_mean"].dropna()
    if len(fires):
        text += f"; the share of positive outputs changed by {share(float(fires.median()))} on average"
    return [f"{text}."]


def _stored(layers: pd.DataFrame, about: What) -> list[str]:
    """Which norms learned or remember something else."""
    sentences = []
    for column, n, words in (
        ("affine_gap", about.n_affine, "γ and β moved most at {}, by {} of the layer’s scale."),
        ("running_gap", about.n_running, "The running statistics moved most at {}, by {} σ."),
    ):
        if n and layers[column].max() > 0:
            most = layers.iloc[int(layers[column].argmax())]
            sentences.append(words.format(named(most), number(float(most[column]), 2)))
    return sentences


def _rules(findings: pd.DataFrame) -> str:
    serious = findings[findings["severity"] != "info"]
    if serious.empty:
        return ""
    rules = [f"{rule} ({count(len(group), 'place')})" for rule, group in serious.groupby("rule", sort=False)]
    return f"Worth a look: {', '.join(rules)}."


def _cautions(a: Recording, b: Recording, tables: Differences) -> list[str]:
    """What a reader must know before believing the numbers."""
    layers = tables.layers
    cautions = []
    seen = layers[["n_images_a", "n_images_b"]].max()
    if 0 < seen.min() < FEW_IMAGES:
        cautions.append(
            f"One side saw {count(int(seen.min()), 'image')}: its errors are themselves uncertain below {FEW_IMAGES}."
        )
    for name, of_a, of_b in (
        ("preprocessing", a.about.preprocessing, b.about.preprocessing),
        ("device", a.about.device, b.about.device),
    ):
        if of_a != of_b and not {of_a, of_b} & {"not stated", "none"}:
            cautions.append(f"The {name} differs: {of_a} in A, {of_b} in B.")
    unknown = layers["post_gap"].notna() & layers["post_noise"].isna()
    if unknown.any():
        cautions.append(
            f"Of the outputs of {count(int(unknown.sum()), 'norm')} no error is known, so their gaps count by size alone."
        )
    if tables.channels["pre_w1"].isna().all() and np.isfinite(layers["pre_gap"]).any():
        cautions.append(
            "Without histograms on both sides only means and deviations are compared, not shapes."
        )
    return cautions
