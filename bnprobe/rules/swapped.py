"""A rule about vectors in each other's place: γ and β, or running mean and variance, mixed up by a converter of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bnprobe.rules.edits import Swap, remedy
from bnprobe.rules.remedies import path
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.wording import count
from bnprobe.stats.moments import Array

FEWEST_CHANNELS = 32
"""Of all norms together, for signs to say anything."""

MOST = 0.8
"""Share of the norms that must look so: a converter does the same to all."""

EITHER_SIGN = 0.1
"""Share of all channels that must be negative, and positive, for values to lie around 0."""

SPREAD = 1.0
"""Of what is stored around 1: standard deviation over channels relative to the mean, at most."""


@dataclass(frozen=True)
class Pair:
    """Two vectors of a norm: the first is positive and around 1 in training, the second around 0.

    What is `learned` may be negative by itself, so that its size must speak as well.
    """

    positive: str
    either: str
    says: str
    positive_name: str
    either_name: str
    learned: bool
    swap: str
    follows: str
    attributes: tuple[str, str]


AFFINE = Pair(
    "gamma",
    "beta",
    "γ and β",
    "γ",
    "β",
    True,
    "n.weight.data, n.bias.data = n.bias.data, n.weight.data",
    "every norm scales by what it should add",
    ("weight", "bias"),
)

STATISTICS = Pair(
    "running_var",
    "running_mean",
    "Running mean and variance",
    "the running variance",
    "the running mean",
    False,
    "n.running_mean, n.running_var = n.running_var, n.running_mean",
    "eval mode outputs NaN",
    ("running_mean", "running_var"),
)


def swapped(evidence: Evidence) -> Iterator[Finding]:
    """Vectors that hold each other's values in nearly all norms."""
    for pair in (AFFINE, STATISTICS):
        found = swapped_norms(evidence, pair)
        if not found:
            continue
        layers = [layer for layer, _ in found]
        negative = np.concatenate([values < 0 for _, values in found]).mean()
        yield Finding(
            "critical",
            layers[0],
            f"{pair.says} have changed places in {count(len(layers), 'norm')}: {pair.follows}.",
            f"in these norms {pair.either_name} is positive in every channel, as {pair.positive_name} should be, and "
            f"{pair.positive_name} is negative in {negative:.0%} of the channels, as {pair.either_name} may be.",
            f"Correct the names in the converter, or exchange them: `for path in {_paths(layers)}: "
            f"n = model.get_submodule(path); {pair.swap}`.",
            remedy=remedy(Swap(tuple(map(path, layers)), *pair.attributes)),
        )


def _paths(layers: list[str]) -> str:
    return "[" + ", ".join(f'"{path(layer)}"' for layer in layers) + "]"


def swapped_norms(evidence: Evidence, pair: Pair) -> list[tuple[str, Array]]:
    """The norms whose two vectors look like each other's, with the one that should be positive; all or none.

    A single norm may have any values; nearly all norms of a network do not.
    """
    known, found = 0, []
    for row, channels in evidence.sites:
        either, positive = (channels[name].to_numpy(float) for name in (pair.either, pair.positive))
        if row["call"] or np.isnan(either).all() or np.isnan(positive).all():
            continue
        if np.isinf(either).any():
            continue  # a vector that is not finite has a rule of its own
        known += 1
        if (either > 0).all() and (not pair.learned or _larger_and_alike(either, positive)):
            found.append((str(row["layer"]), positive))
    signs = np.concatenate([values < 0 for _, values in found]) if found else np.zeros(0, bool)
    both = len(signs) >= FEWEST_CHANNELS and EITHER_SIGN <= signs.mean() <= 1 - EITHER_SIGN
    return found if both and len(found) >= MOST * known else []


def scaled_by_beta(evidence: Evidence) -> set[str]:
    """The norms whose γ is their β: no advice on channels of a small γ holds for them."""
    return {layer for layer, _ in swapped_norms(evidence, AFFINE)}


def _larger_and_alike(ones: Array, others: Array) -> bool:
    """Whether positive values are alike relative to their mean, and larger than the others."""
    return bool(ones.std() <= SPREAD * ones.mean() and np.median(np.abs(others)) < np.median(ones))


RULES = (
    Rule(
        "vectors-swapped",
        "Are γ and β, and running mean and variance, in their places?",
        "https://github.com/gmalivenko/pytorch2keras/issues/120; ONNX operators, BatchNormalization (order of inputs)",
        "γ and running variances that are positive in most channels, or another vector that has both signs",
        swapped,
        edits=(Swap,),
    ),
)
