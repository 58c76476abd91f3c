"""What the norm and the weights before a norm imply for its running statistics, where a file alone shows both.

Which weights feed a norm is known by `producers`. Which norm feeds those weights, and whether a ReLU stands between, is
tried out: of the norms that stand shortly before, with as many channels as the weights take, the one whose channels'
implied means the running means follow, in their pattern over channels, whatever their scale. A common factor in all
running statistics leaves that pattern as it is, and shows then in the scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from bnprobe.checkpoints.groups import Norm
from bnprobe.checkpoints.producers import as_float64
from bnprobe.graph.geometry import Geometry, Source
from bnprobe.graph.propagate import implied
from bnprobe.models.tensor_kinds import is_number
from bnprobe.recording.neighbours import Implied
from bnprobe.recording.terms import IMPLIED_CORRELATION
from bnprobe.stats import gaussian
from bnprobe.stats.moments import Array

NEAREST = 4
"""Norms before the weights that are tried."""

FEWEST_CHANNELS = 8
"""Of so many random pairs, 1 in 500 correlates as much."""

LARGEST = 2**24
"""Weights of a layer beyond which none are tried: a hundred megabytes as float64."""

ACTIVATIONS = ("relu", "none")


@dataclass(frozen=True)
class Prediction:
    """The norm found before, what acts between, and what both imply."""

    source: str
    activation: str
    implied: Implied


def predicted(norm: Norm, weight: Tensor, bias: Tensor | None, before: Sequence[Norm]) -> Prediction | None:
    """The best prediction of a norm's running statistics by one of the norms `before` it; None where none is good."""
    if norm.kind != "batch_norm" or norm.n_channels < FEWEST_CHANNELS or weight.numel() > LARGEST:
        return None
    kernel = as_float64(weight).reshape(weight.shape)
    added = (
        as_float64(bias) if bias is not None and is_number(bias) and bias.shape == kernel.shape[:1] else None
    )
    target = as_float64(norm.vectors["running_mean"])
    tried = [
        (_correlation(target, _mean(kernel, source) + (0.0 if added is None else added)), source)
        for source in _sources(kernel, before[-NEAREST:])
    ]
    fit, source = max(tried, key=lambda one: one[0], default=(0.0, None))
    if source is None or not fit >= IMPLIED_CORRELATION:
        return None
    geometry = _interior(kernel, kernel_groups(kernel, source.n_channels))
    what = implied(kernel, added, geometry, source)
    return None if what is None else Prediction(source.site, source.activation, what)


def _sources(kernel: Array, norms: Sequence[Norm]) -> Iterator[Source]:
    """The norms that may feed these weights, each behind nothing or a ReLU."""
    for norm in norms:
        if norm.kind == "batch_norm" and kernel_groups(kernel, norm.n_channels):
            gamma, beta = (
                as_float64(norm.vectors[name]) if name in norm.vectors else None for name in ("gamma", "beta")
            )
            for activation in ACTIVATIONS:
                yield Source("norm", activation, norm.n_channels, norm.path, gamma, beta)


def kernel_groups(kernel: Array, n_inputs: int) -> int:
    """In how many groups the weights take so many channels; 0 where they cannot."""
    groups, rest = divmod(n_inputs, kernel.shape[1])
    return groups if groups and not rest and not kernel.shape[0] % groups else 0


def _interior(kernel: Array, groups: int) -> Geometry:
    """One position, at which the whole kernel meets the input: a file does not hold the padding."""
    sides = kernel.shape[2:]
    if not sides:
        return Geometry()
    ones = (1,) * len(sides)
    return Geometry(ones, ((0, 0),) * len(sides), ones, groups, sides, ones)


def _mean(kernel: Array, source: Source) -> Array:
    """The mean before the norm, as `implied` computes it, and no more."""
    beta = np.zeros(source.n_channels) if source.beta is None else source.beta
    gamma = np.ones(source.n_channels) if source.gamma is None else source.gamma
    mean, _ = gaussian.moments(source.activation, beta, gamma)
    groups = kernel_groups(kernel, source.n_channels)
    summed = kernel.reshape(groups, kernel.shape[0] // groups, kernel.shape[1], -1).sum(axis=3)
    mixed: Array = np.einsum("goc,gc->go", summed, mean.reshape(groups, -1)).reshape(-1)
    return mixed


def _correlation(running: Array, expected: Array) -> float:
    """Over the channels where both are finite; -1 where one of them does not vary."""
    known = np.isfinite(running) & np.isfinite(expected)
    x, y = running[known], expected[known]
    if len(x) < FEWEST_CHANNELS or not x.std() > 0 or not y.std() > 0:
        return -1.0
    return float(np.corrcoef(x, y)[0, 1])
