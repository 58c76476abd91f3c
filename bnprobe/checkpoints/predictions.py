"""What the norm and the weights before a norm imply for its running statistics, where a file alone shows both.

Which weights feed a norm is known by `producers`. Which norm feeds those weights, and whether a ReLU stands between, is
tried out: of the norms that stand shortly before, with as many channels as the weights take, the one whose channels'
implied means the running means follow, in their pattern over channels, whatever their scale. A common factor in all
running statistics leaves that pattern as it is, and shows then in the scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bnprobe.checkpoints.groups import Norm
from bnprobe.checkpoints.producers import Filters, bias_of
from bnprobe.graph.geometry import Geometry, Source
from bnprobe.graph.propagate import implied, reaching
from bnprobe.recording.neighbours import Implied
from bnprobe.recording.terms import IMPLIED_CORRELATION
from bnprobe.stats import gaussian
from bnprobe.stats.moments import Array
from bnprobe.weights import Tensor

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


class Candidate(NamedTuple):
    """A norm that may feed some weights, the means of what it hands on, and those that the weights make of them: alone, and
    with their bias."""

    source: Source
    handed_on: Array
    summed: Array
    expected: Array


class Predictions:
    """Predictions by the norms of one file, whose running means are read once; what each of them hands on is computed
    once."""

    def __init__(self, norms: Sequence[Norm]) -> None:
        self.norms = norms
        self.means = {
            i: norm.vectors["running_mean"].float64()
            for i, norm in enumerate(norms)
            if "running_mean" in norm.vectors
        }
        self._handed_on: dict[int, list[tuple[Source, Array]]] = {}

    @np.errstate(invalid="ignore", over="ignore")  # in a broken file they need not be finite
    def candidates(self, i: int, weight: Tensor, alone: Filters, bias: Tensor | None) -> list[Candidate]:
        """What the weights before the i-th norm make of each norm that may feed them; none where means are not stored."""
        norm = self.norms[i]
        if norm.kind != "batch_norm" or weight.numel > LARGEST:
            return []
        added = bias_of(bias, norm.n_channels)
        summed = ((source, mean, mixed(alone.summed, mean)) for source, mean in self.sources(i, weight.shape))
        return [
            Candidate(source, mean, own, own + (0.0 if added is None else added))
            for source, mean, own in summed
        ]

    def of(
        self, i: int, weight: Tensor, bias: Tensor | None, candidates: Sequence[Candidate]
    ) -> Prediction | None:
        """The best prediction of the running statistics of the i-th norm by one before it; None where none is good."""
        norm = self.norms[i]
        fit, source = -1.0, None
        for tried in candidates:
            r = correlation(self.means[i], tried.expected)
            if r > fit:
                fit, source = r, tried.source
        if source is None or not fit >= IMPLIED_CORRELATION:
            return None
        added = bias_of(bias, norm.n_channels)
        geometry = _interior(weight.shape, kernel_groups(weight.shape, source.n_channels))
        what = implied(weight.float64().reshape(weight.shape), added, geometry, reaching(source))
        return None if what is None else Prediction(source.site, source.activation, what)

    def sources(self, i: int, kernel: tuple[int, ...]) -> Iterator[tuple[Source, Array]]:
        """The norms shortly before that may feed these weights, each behind nothing or a ReLU, with the mean of that."""
        for j in range(max(0, i - NEAREST), i):
            norm = self.norms[j]
            if norm.kind == "batch_norm" and kernel_groups(kernel, norm.n_channels):
                yield from self.handed_on(j)

    def handed_on(self, j: int) -> list[tuple[Source, Array]]:
        """What the j-th norm hands on as it is and after a ReLU, each with its mean."""
        if j not in self._handed_on:
            self._handed_on[j] = list(_handed_on(self.norms[j]))
        return self._handed_on[j]


def _handed_on(norm: Norm) -> Iterator[tuple[Source, Array]]:
    gamma, beta = (
        norm.vectors[name].float64() if name in norm.vectors else None for name in ("gamma", "beta")
    )
    n = norm.n_channels
    mean = np.zeros(n) if beta is None else beta
    for activation in ACTIVATIONS:
        with np.errstate(invalid="ignore", over="ignore"):  # in a broken file they need not be finite
            after, _ = gaussian.moments(activation, mean, np.ones(n) if gamma is None else gamma)
        yield Source("norm", activation, n, norm.path, gamma, beta), after


def kernel_groups(kernel: tuple[int, ...], n_inputs: int) -> int:
    """In how many groups weights of this shape take so many channels; 0 where they cannot."""
    groups, rest = divmod(n_inputs, kernel[1])
    return groups if groups and not rest and not kernel[0] % groups else 0


def _interior(kernel: tuple[int, ...], groups: int) -> Geometry:
    """One position, at which the whole kernel meets the input: a file does not hold the padding."""
    sides = kernel[2:]
    if not sides:
        return Geometry()
    ones = (1,) * len(sides)
    return Geometry(ones, ((0, 0),) * len(sides), ones, groups, sides, ones)


def mixed(summed: Array, mean: Array) -> Array:
    """The mean before the norm, as `implied` computes it, and no more."""
    groups = len(mean) // summed.shape[1]
    parts = summed.reshape(groups, -1, summed.shape[1])
    mixed: Array = np.einsum("goc,gc->go", parts, mean.reshape(groups, -1)).reshape(-1)
    return mixed


def correlation(running: Array, expected: Array) -> float:
    """Over the channels where both are finite; -1 where one of them does not vary, or too far for its squares."""
    known = np.isfinite(running) & np.isfinite(expected)
    x, y = running[known], expected[known]
    if len(x) < FEWEST_CHANNELS:
        return -1.0
    # as numpy.corrcoef does, in a third of its time: of one file it is asked for a thousand
    x, y = x - x.mean(), y - y.mean()
    squares = float((x @ x) * (y @ y))
    return float(np.clip(x @ y / np.sqrt(squares), -1.0, 1.0)) if 0 < squares < np.inf else -1.0
