"""Words that sentences of several rules share: counts in the right form, kinds of norms, and activations."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

KINDS = {
    "batch_norm": "batch norm",
    "layer_norm": "layer norm",
    "group_norm": "group norm",
    "instance_norm": "instance norm",
    "rms_norm": "RMS norm",
    "unknown_norm": "norm-like layer",
}
"""Kinds of norms as sentences of rules and of the page call them; a registered kind goes by its own name."""

ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "hardtanh": "Hardtanh",
    "hardsigmoid": "Hardsigmoid",
    "hardswish": "Hardswish",
}
"""As torch writes them."""


def count(n: float, noun: str) -> str:
    """1 channel, 2 channels, 3 batches, 1,000 samples."""
    plural = noun + ("es" if noun.endswith(("s", "x", "ch")) else "s")
    number = f"{n:,.0f}" if float(n).is_integer() else f"{n:g}"
    return f"{number} {noun if n == 1 else plural}"


def number(value: float, digits: int = 3) -> str:
    """So many significant digits, and never 1.7e+06 in a sentence."""
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e+" in text and abs(value) < 1e15 else text


def sigmas(shift: float) -> str:
    """A shift in standard deviations: 0.59, 19,600."""
    return f"{shift:.2f}" if shift < 100 else number(shift)


def times(ratio: float, what: str, adjective: str = "large") -> str:
    """A ratio to something: 2.4 times A's; as large as A's where two digits would say 1.0."""
    return f"as {adjective} as {what}" if f"{ratio:.2g}" == "1" else f"{number(ratio)} times {what}"


def out_of(found: pd.DataFrame, channels: pd.DataFrame) -> str:
    """How many of the layer's channels: 2 of 3 channels."""
    return f"{len(found)} of {count(len(channels), 'channel')}"


def in_all(channels: pd.DataFrame) -> str:
    """That something holds for every channel of a layer."""
    return f"in all {len(channels)} channels" if len(channels) > 1 else "in the only channel"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def some(found: pd.DataFrame, channels: pd.DataFrame) -> str:
    """All or some of the layer's channels, to open a sentence; without a number, so that layers can share it."""
    return "All channels" if len(found) == len(channels) else "Some channels"


def kind_words(kind: str, article: bool = False) -> str:
    """A kind of norm in words: batch norm, RMS norm; with "a" or "an" where that is asked for."""
    words = KINDS.get(kind, kind)
    return (
        f"{'an' if words[:1].lower() in 'aeiou' or words.startswith('RMS') else 'a'} {words}"
        if article
        else words
    )


def activation(follows: str) -> str:
    """The activation after a norm as torch writes it; "activation" where it is not one of those that clip."""
    names = {way.removeprefix("cat, ").partition("(")[0] for way in follows.split(" | ")}
    return ACTIVATIONS.get(names.pop(), "activation") if len(names) == 1 else "activation"


def eps_of(row: pd.Series) -> str:
    """The eps of a norm, marked where it is assumed."""
    return f"{'an assumed ' if row['eps_assumed'] else ''}eps = {row['eps']:g}"


def if_assumed(row: pd.Series) -> str:
    """What a sentence ends with, before its full stop, where it rests on an assumed eps."""
    return f", if eps is {row['eps']:g} as assumed" if row["eps_assumed"] else ""
