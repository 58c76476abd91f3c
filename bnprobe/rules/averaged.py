"""A rule about two files, one of which is the mean of the other and of a network that has nothing in common with it.

B = α A + (1 − α) C with channels of C that are no channels of A: over the channels of a layer B goes with A by α, and
varies α² + (1 − α)² times as much; so do the matrices between the norms. Two states of one training, their mean (EMA, SWA)
and means of fine-tuned copies go with each other by nearly 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from bnprobe.rules.by_hand import TWO_SIDES
from bnprobe.rules.rule import Evidence, Finding, Rule

VECTORS = {"gamma": "γ", "beta": "β", "running_mean": "running means"}
"""Running means of two networks on one kind of data have something in common: they serve where a norm has nothing else."""

FEW_CHANNELS = 8
"""Channels of a layer below which its slope says little."""

FEWEST_CHANNELS = 64
"""Channels of all layers together."""

FEWEST_MATRICES = 3
"""Matrices whose size must say the same."""

SHARES = (0.2, 0.8)
"""α from and up to which a side is a mean: beyond it is the one network or the other."""

ALIKE = 0.12
"""How far the α of two vectors may lie apart: three standard errors of one over sixty channels."""

NEAR = 1.3
"""How far from α² + (1 − α)² a variance over channels may be, and the squared size of a typical matrix, as a factor."""

MOST = 0.8
"""Share of the matrices that must be of one size relative to the parent's: what decay or training leave differs by layer."""

ONE_SIZE = 1.25
"""A factor within which squared sizes are the same."""


class _Spread(NamedTuple):
    """Over the channels of the layers that have a vector: slope on the other side's, and variance relative to it."""

    slope: float
    variance: float
    n_channels: int


def averaged(evidence: Evidence) -> Iterator[Finding]:
    """A side that is the mean of the other and of an unrelated network."""
    for mean, parent in (("b", "a"), ("a", "b")):
        spreads, sizes = _spreads(evidence, parent, mean), _sizes(evidence.tensors, parent, mean)
        share = _share(spreads, sizes)
        if share is None:
            continue
        facts = ", ".join(
            f"{words} by {one.slope:.2f} with {one.variance:.2f} of the variance"
            for words, one in spreads.items()
        )
        yield Finding(
            "warning",
            "",
            f"{mean.upper()} is a mean of {parent.upper()} and a network whose channels are others: about {share:.0%} of it "
            f"is {parent.upper()}.",
            f"over the channels of a layer {mean.upper()} goes with {parent.upper()}: {facts}; {len(sizes):,} matrices are "
            f"typically {np.sqrt(np.median(sizes)):.2f} times as large (a mean of unrelated networks: "
            f"{np.sqrt(share**2 + (1 - share) ** 2):.2f}).",
            "Average the predictions of networks that were trained apart, not their weights: activations shrink from layer "
            "to layer. Means of states of one training, or of fine-tuned copies of one network, are another matter.",
        )
        return


def _spreads(evidence: Evidence, parent: str, mean: str) -> dict[str, _Spread]:
    """The spread of each vector that varies, by its words."""
    found = {
        name: spread
        for name in VECTORS
        if (spread := _spread(evidence.channels, f"{name}_{parent}", f"{name}_{mean}")) is not None
    }
    if len(found) > 1:
        found.pop("running_mean", None)
    return {VECTORS[name]: spread for name, spread in found.items()}


def _share(spreads: dict[str, _Spread], sizes: np.ndarray) -> float | None:
    """The α on which vectors and matrices agree; None where they do not."""
    if not spreads or len(sizes) < FEWEST_MATRICES:
        return None
    typical = float(np.median(sizes))
    slopes = np.array([one.slope for one in spreads.values()])
    share = float(np.median(slopes))
    expected = share**2 + (1 - share) ** 2
    variances = np.array([*(one.variance for one in spreads.values()), typical]) / expected
    of_one_size = (np.abs(np.log(sizes / typical)) <= np.log(ONE_SIZE)).mean() >= MOST
    is_mean = SHARES[0] <= share <= SHARES[1] and np.abs(slopes - share).max() <= ALIKE
    return share if of_one_size and is_mean and np.abs(np.log(variances)).max() <= np.log(NEAR) else None


def _spread(channels: pd.DataFrame, parent: str, mean: str) -> _Spread | None:
    slopes, variances, n = [], [], []
    for _, rows in channels[channels["call"] == 0].groupby("layer", sort=False):
        x, y = rows[parent].to_numpy(float), rows[mean].to_numpy(float)
        if len(x) < FEW_CHANNELS or not np.isfinite([x, y]).all() or not x.std() > 0 or not y.std() > 0:
            continue
        x, y = x - x.mean(), y - y.mean()
        slopes.append(float((x * y).sum() / (x * x).sum()))
        variances.append(float((y * y).sum() / (x * x).sum()))
        n.append(len(x))
    if sum(n) < FEWEST_CHANNELS:
        return None
    return _Spread(
        float(np.average(slopes, weights=n)), float(np.exp(np.average(np.log(variances), weights=n))), sum(n)
    )


def _sizes(tensors: pd.DataFrame, parent: str, mean: str) -> np.ndarray:
    """Squared size of each matrix that differs, relative to that of the parent."""
    if tensors.empty:
        return np.zeros(0)
    both = tensors[(tensors["side"] == "both") & tensors["shape_a"].str.contains("×")]
    with np.errstate(all="ignore"):
        ratios = (both[f"size_{mean}"] / both[f"size_{parent}"]).to_numpy(float) ** 2
    kept: np.ndarray = ratios[np.isfinite(ratios) & (ratios > 0)]
    return kept


RULES = (
    Rule(
        "mean-of-unrelated",
        "Is one side the mean of the other and of a network that has nothing in common with it?",
        "Ainsworth, Hayase & Srinivasa 2023, arXiv:2209.04836; Jordan et al. 2023, arXiv:2211.08403",
        "vectors and matrices that do not agree on one share between 0.2 and 0.8",
        averaged,
        by_hand=TWO_SIDES,
    ),
)
