"""How well the running means of a norm follow what the norm and the weights before it imply: as they are stored, with the
norm taken out of the weights again, and those of other norms in their place.

Nothing but a pattern over channels is compared, so that neither a factor nor the scale of the data matters. Which norm
feeds the weights is tried out, as for `predictions`, so that a fit is too good rather than too bad.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bnprobe.checkpoints.groups import Norm
from bnprobe.checkpoints.predictions import Candidate, Predictions, correlation, kernel_groups, mixed
from bnprobe.checkpoints.producers import Filters, order_of, together
from bnprobe.recording.terms import MISFIT, TORCH_EPS
from bnprobe.stats.moments import Array
from bnprobe.weights import State

LIKE_ANOTHER = 0.9
"""Correlation from which the running means of another norm are taken for those of this one: of sixteen channels that have
nothing to do with each other, one pair in a million has as much."""


ASIDE = re.compile(r"downsample|shortcut|skip|residual|identity", re.IGNORECASE)
"""Modules that take what a block takes, and stand after its norms."""


class Fit(NamedTuple):
    """Correlations over channels of running and implied means, NaN where nothing is known: `means` as stored, `unfolded`
    with the norm taken out of the weights, `negated` the means with the opposite sign; and the norm whose running means fit
    where those of this one do not, "" for none.
    """

    means: float
    unfolded: float
    negated: float
    like: str


@np.errstate(invalid="ignore", over="ignore")
def fit(
    predictions: Predictions, i: int, alone: Filters, candidates: Sequence[Candidate], eps: float | None
) -> Fit:
    """The fit of the i-th norm to the weights that feed it."""
    if not candidates:
        return Fit(np.nan, np.nan, np.nan, "")
    norm = predictions.norms[i]
    mean = predictions.means[i]
    expected = [one.expected for one in candidates]
    means, negated = _best(mean, expected), _best(-mean, expected)
    scale = _divided_by(norm, TORCH_EPS if eps is None else eps)
    unfolded = _best(mean, [one.summed * scale for one in candidates])
    like = _like(predictions, i, alone, candidates) if means < MISFIT else ""
    return Fit(means, unfolded, negated, like)


def _best(mean: Array, expected: Sequence[Array]) -> float:
    """The highest correlation; NaN where one side of all of them does not vary."""
    found = [r for one in expected if (r := correlation(mean, one)) > -1]
    return max(found, default=float("nan"))


def _divided_by(norm: Norm, eps: float) -> Array:
    """σ / γ, by which folding divides; NaN for channels without a γ to speak of."""
    gamma = norm.vectors["gamma"].float64() if "gamma" in norm.vectors else np.ones(norm.n_channels)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        scale = np.sqrt(norm.vectors["running_var"].float64() + eps) / gamma
    return np.where(np.isfinite(scale), scale, np.nan)


def _like(predictions: Predictions, i: int, alone: Filters, candidates: Sequence[Candidate]) -> str:
    """The norm of as many channels whose running means these weights explain best, if well."""
    norm = predictions.norms[i]
    before, expected = {one.source.site for one in candidates}, [one.expected for one in candidates]
    best, path = LIKE_ANOTHER, ""
    for j, other in enumerate(predictions.norms):
        if other.path == norm.path or other.kind != norm.kind or other.n_channels != norm.n_channels:
            continue
        # where the two were exchanged, what feeds these weights is stored here
        exchanged = predictions.handed_on(i) if other.path in before else ()
        own = [mixed(alone.summed, mean) for _, mean in exchanged]
        r = _best(predictions.means[j], [*expected, *own])
        if r >= best:
            best, path = r, other.path
    return path


def directly_fed(state: State, norms: Sequence[Norm], fed: Mapping[str, str]) -> set[str]:
    """The norms whose weights are the first ones after the previous norm in the order of the file, in one part of the
    network with it, and take its channels, each by itself or all together: another part may have another input."""
    return set(_directly_fed(state, norms, fed))


def _directly_fed(state: State, norms: Sequence[Norm], fed: Mapping[str, str]) -> Iterator[str]:
    modules = order_of(state)
    if modules is None:
        return
    at = {path: place for place, path in enumerate(modules)}
    for before, norm in pairwise(norms):
        producer = fed.get(norm.path, "")
        if not producer or at[producer] < at[before.path] or not together(before.path, producer):
            continue
        between = modules[at[before.path] + 1 : at[producer]]
        weights = [state[name] for path in between if (name := f"{path}.weight") in state]
        kernel = state[f"{producer}.weight"].shape
        takes = before.n_channels == kernel[1] or before.n_channels == kernel_groups(
            kernel, before.n_channels
        )
        if takes and not ASIDE.search(producer) and not any(weight.dim > 1 for weight in weights):
            yield norm.path
