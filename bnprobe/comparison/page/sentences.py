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
from bnprobe.comparison.page.beside import norms_alike, of_tensors, trained_apart
from bnprobe.comparison.page.broken import broken
from bnprobe.comparison.significance import ROUNDING
from bnprobe.recording import Recording
from bnprobe.report.chapters.chapter import named, unit_of
from bnprobe.report.chapters.findings import worst_finding
from bnprobe.report.numbers import count, number, share
from bnprobe.rules import Limits

FEW_IMAGES = 30
VISIBLE = 0.01
"""Change of a standard deviation, relative to it, from which two digits show it."""

STORED = ("running", "affine")
"""What can be compared where no data went through one side."""


def answer(
    a: Recording, b: Recording, tables: Differences, findings: pd.DataFrame, limits: Limits
) -> list[str]:
    """What changed, in a few sentences, the most important one first."""
    layers = tables.layers
    about, unit = what(layers, tables.channels), _unit(a, b)
    tensors = tables.tensors
    beside = norms_alike(a, tensors, about.n_sites) if len(tensors) else ""
    if about.n_identical == about.n_sites:
        alone = " Norms that exist on one side only are listed below." if len(tables.unread) else ""
        same = f"Nothing changed: {_of(about.n_sites)} same numbers on both sides, to the last bit."
        return [f"{beside or same}{alone}", *filter(None, [worst_finding(findings)])]
    wrong = broken(layers)
    if tables.apart:
        where = trained_apart(tables.apart)
    else:
        where = "" if wrong and _agrees(layers) else _where(layers, about, limits, unit, beside)
    sentences = [
        *wrong,
        where,
        *shared_changes(findings),
        _kind(a, b, about, tables),
        f"Beside the norms, {of_tensors(a, tensors)}" if len(tensors) else "",
        *_significant(tables),
        *_stored(layers, about),
        *_own(layers),
        worst_finding(findings),
    ]
    return [sentence for sentence in [*sentences, *_cautions(a, b, tables)] if sentence]


def _unit(a: Recording, b: Recording) -> str:
    """What one sample is called, where both sides call it the same."""
    return unit_of(a) if unit_of(a) == unit_of(b) else "sample"


def _of(n: int) -> str:
    return "the only common norm holds the" if n == 1 else f"all {n:,} common norms hold the"


def _where(layers: pd.DataFrame, about: What, limits: Limits, unit: str, beside: str) -> str:
    """From where on the two differ, where they differ by the limit, and where most."""
    known = list(difference_sites(layers))
    if not known:
        return "Nothing could be compared: the sides store different things, and at most one of them was run on data."
    first = next((place for place in known if place.gap > ROUNDING), None)
    if first is None:
        return _unmeasured(layers, about, known[0].aspect, beside)
    # of the same images no choice of images makes a difference
    certain = first if about.same_inputs else first_beyond_noise(layers)
    largest = max(known, key=lambda place: place.gap)
    if certain is None:
        return f"The choice of {unit}s explains every difference; the largest is {_gap(largest)}, at {largest.words}."
    found = first_difference(layers, limits.gap)
    begins, more = _first(known, first, certain, unit), [_limit(known, certain, found, limits.gap)]
    if not any(_same_place(largest, place) for place in (certain, found)):
        more.append(f"The largest difference is {_gap(largest)}, at {largest.words}.")
    # another mode acts from the first norm on, which is no news: how much becomes of it is
    sentences = [*more, *begins] if about.n_modes else [*begins, *more]
    return " ".join(sentence for sentence in sentences if sentence)


def _unmeasured(layers: pd.DataFrame, about: What, aspect: str, beside: str) -> str:
    """That no difference of a norm is more than rounding, and what differs all the same: `beside` in words."""
    only = layers[layers["filters_differ"]]
    if len(only):
        return (
            f"The norms are the same, but the weights feeding {count(len(only), 'norm')} differ, first those feeding "
            f"{named(only.iloc[0])}."
        )
    if about.same_weights and aspect in STORED and beside:
        return beside
    if about.same_weights and aspect in STORED:
        agree = (
            "the only common norm agrees"
            if about.n_sites == 1
            else f"all {about.n_sites:,} common norms agree"
        )
        return f"Nothing that both sides store differs: {agree} to the last bit."
    return "A and B differ by rounding only."


def _first(
    known: list[DifferenceSite], first: DifferenceSite, certain: DifferenceSite, unit: str
) -> list[str]:
    """From where on A and B differ, and how far they are the same before."""
    if _same_place(first, known[0]):
        return [f"A and B differ from {certain.words} on, by {_gap(certain)}."]
    if _same_place(first, certain):
        return [f"A and B are the same before {certain.words}; there they differ by {_gap(certain)}."]
    return [
        f"A and B are the same up to and including {_previous(known, first).words}.",
        f"At {first.words} they differ by {_gap(first)}, which the choice of {unit}s explains.",
        f"Beyond that, they differ from {certain.words} on, by {_gap(certain)}.",
    ]


def _limit(
    known: list[DifferenceSite], certain: DifferenceSite, found: DifferenceSite | None, limit: float
) -> str:
    """Where they differ by the limit, and how much it was one place earlier; empty where that was said."""
    if found is None:
        return f"Nowhere do A and B differ by {limit:g} standard deviations or more."
    if _same_place(found, certain):
        return ""
    previous = _previous(known, found)
    up_from = (
        f", up from {number(previous.gap, 2)} one place earlier"
        if ROUNDING < previous.gap < found.gap
        else ""
    )
    return f"A and B first differ by {limit:g} standard deviations or more at {found.words}: {_gap(found)}{up_from}."


def _previous(known: list[DifferenceSite], place: DifferenceSite) -> DifferenceSite:
    at = [other[:3] for other in known].index(place[:3])  # a noise that is not known is not equal to itself
    return known[at - 1]


def _same_place(one: DifferenceSite, other: DifferenceSite | None) -> bool:
    return other is not None and one[:3] == other[:3]


def _agrees(layers: pd.DataFrame) -> bool:
    """Whether no gap that can be measured is more than rounding: then what cannot be measured is all that differs."""
    same = all(place.gap <= ROUNDING for place in difference_sites(layers))
    return same and not layers["filters_differ"].any()


def _gap(place: DifferenceSite) -> str:
    of_layer = "" if place.aspect in ("pre", "running") else " of the layer"
    return f"{number(place.gap, 2)} standard deviations{of_layer}"


def shared_changes(findings: pd.DataFrame) -> list[str]:
    """Changes that norms have in common: the first thing to know of vectors that differ."""
    return [str(says) for says in findings.loc[findings["rule"] == "changed-alike", "says"]]


def _kind(a: Recording, b: Recording, about: What, tables: Differences) -> str:
    """What is compared, as far as the numbers tell."""
    feeding = f" The weights feeding {count(about.n_filters, 'norm')} differ." if about.n_filters else ""
    return f"{_weights(about)}.{feeding} {_inputs(a, b, about, tables)}."


def _weights(about: What) -> str:
    if about.same_weights:
        return "The norms store the same values on both sides"
    if not about.n_affine:
        return f"γ and β are the same on both sides, but the running statistics differ {_in(about.n_running, about)}"
    if not about.n_running:
        return f"γ and β differ {_in(about.n_affine, about)}, the running statistics in none"
    return f"γ and β differ {_in(about.n_affine, about)}, the running statistics in {about.n_running:,}"


def _in(n: int, about: What) -> str:
    return "in the only common norm" if about.n_sites == 1 else f"in {n:,} of {about.n_sites:,} norms"


def _inputs(a: Recording, b: Recording, about: What, tables: Differences) -> str:
    unit = _unit(a, b)
    if about.same_inputs is None:
        empty = [name for name, side in (("A", a), ("B", b)) if side.weights_only]
        return (
            f"No data were run on {' and '.join(empty)}"
            if empty
            else "The first norm was not run on both sides"
        )
    modes = (
        f". {count(about.n_modes, 'norm')} used running statistics on one side and batch statistics on the other"
        if about.n_modes
        else ""
    )
    if about.same_inputs:
        return f"The first norm received the same inputs, so both sides saw the same {unit}s{modes}"
    return f"The first norm received different inputs{_why(tables, unit)}{modes}"


def _why(tables: Differences, unit: str) -> str:
    """Why the inputs of the first norm differ, as far as it is known."""
    first = tables.layers.iloc[0]
    if tables.apart:
        return ""
    if first["weights_before_differ"]:
        return ": the weights before it differ, as between two states of one training"
    if {first["mode_a"], first["mode_b"]} == {"train", "eval"} and first["dropout_before"]:
        return f": in train mode {first['dropout_before']} drops values before it"
    if first["error_from"] == "pairs":
        return (
            f" of the same {unit}s in the same order, so their preparation or the weights feeding it differ"
        )
    return f", so the {unit}s or the weights feeding it differ"


def _significant(tables: Differences) -> list[str]:
    """How many channels changed beyond sampling error."""
    channels, layers = tables.channels, tables.layers
    tested = channels["pre_shift_q"].notna() | channels["pre_ratio_q"].notna()
    if not tested.any():
        return []
    n, total = int(channels["pre_changed"].sum()), int(tested.sum())
    of = (
        f"{n:,} of {count(total, 'channel')} ({share(n / total)})"
        if n
        else f"none of {count(total, 'channel')}"
    )
    sentences = [f"Inputs changed beyond sampling error (false discovery rate 1%) in {of}."]
    w1, by_chance = (layers[f"pre_w1_{which}"].median() for which in ("median", "noise"))
    if w1 == w1:
        floor = (
            f"; the choice of samples alone makes {number(by_chance, 2)}" if by_chance == by_chance else ""
        )
        sentences.append(
            f"Their distributions typically moved by {number(w1, 2)} standard deviations{floor}."
        )
    fires = layers["fires_change_mean"].dropna()
    if len(fires):
        points = number(100 * float(fires.median()), 2)
        sentences.append(f"The share of positive outputs changed by {points} percentage points on average.")
    return [" ".join(sentences)]


def _stored(layers: pd.DataFrame, about: What) -> list[str]:
    """Where what the norms store changed most."""
    sentences = []
    for column, n, words in (
        ("affine_gap", about.n_affine, "γ and β changed most at {}, by {} of the layer's scale."),
        (
            "running_gap",
            about.n_running,
            "The running statistics changed most at {}, by {} standard deviations.",
        ),
    ):
        if n and layers[column].max() > 0:
            most = layers.iloc[int(layers[column].argmax())]
            sentences.append(words.format(named(most), number(float(most[column]), 2)))
    return sentences


def _own(layers: pd.DataFrame) -> list[str]:
    """Where what norms take from each sample changed most."""
    if not layers["own_gap"].max() >= VISIBLE:
        return []
    most = layers.iloc[int(layers["own_gap"].argmax())]
    moved = float(most["own_shift"])
    shift = f", and its mean moved by {number(moved, 2)} of that" if abs(moved) >= VISIBLE else ""
    return [
        f"Of the statistics that norms take from each sample, those of {named(most)} changed most: its standard deviation "
        f"in B is {number(float(most['own_ratio']), 2)} times that in A{shift}."
    ]


def _cautions(a: Recording, b: Recording, tables: Differences) -> list[str]:
    """What a reader must know before believing the numbers."""
    layers, unit = tables.layers, _unit(a, b)
    cautions = []
    seen = layers[["n_images_a", "n_images_b"]].max()
    if 0 < seen.min() < FEW_IMAGES:
        cautions.append(
            f"One side saw only {count(int(seen.min()), unit)}; error estimates are unreliable below {FEW_IMAGES}."
        )
    for name, of_a, of_b in (
        ("preprocessing", a.about.preprocessing, b.about.preprocessing),
        ("device", a.about.device, b.about.device),
    ):
        if of_a != of_b and not {of_a, of_b} & {"not stated", "none"}:
            cautions.append(f"The {name} differs: {of_a} in A, {of_b} in B.")
    if tables.apart:
        return cautions
    unknown = layers["post_gap"].notna() & layers["post_noise"].isna()
    if unknown.any():
        cautions.append(
            f"No error estimate exists for the outputs of {count(int(unknown.sum()), 'norm')}, so differences there "
            "count by size alone."
        )
    if tables.channels["pre_w1"].isna().all() and np.isfinite(layers["pre_gap"]).any():
        cautions.append(
            "Without histograms on both sides, only means and standard deviations are compared, not shapes."
        )
    return cautions
