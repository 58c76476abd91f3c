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
from bnprobe.weights import State, Tensor

LIKE_ANOTHER = 0.9
"""Correlation from which the running means of another norm are taken for those of this one: of sixteen channels that have
nothing to do with each other, one pair in a million has as much."""

POORLY = 0.7
"""Correlation below which other layouts of the weights are tried: of the norms of healthy networks few have less."""

FEWEST_OF_A_LAYOUT = 16
"""Channels from which a layout can be told by their means."""

ASIDE = re.compile(r"downsample|shortcut|skip|residual|identity", re.IGNORECASE)
"""Modules that take what a block takes, and stand after its norms."""


class Fit(NamedTuple):
    """Correlations over channels of running and implied means, NaN where nothing is known: `means` as stored, `unfolded`
    with the norm taken out of the weights, `negated` the means with the opposite sign; and the norm whose running means fit
    where those of this one do not, "" for none. `layout` is the one in which these weights fit, `TRANSPOSED` or
    `RESHAPED`, where as they are stored they do not, "" for none.
    """

    means: float
    unfolded: float
    negated: float
    like: str
    layout: str = ""


TRANSPOSED, RESHAPED = "transposed", "reshaped"
"""Outputs and inputs exchanged; or numbers in the order (positions, inputs, outputs), as TensorFlow stores them, which were
given the shape (outputs, inputs, positions) without being moved."""


@np.errstate(invalid="ignore", over="ignore")
def fit(
    predictions: Predictions,
    i: int,
    weight: Tensor,
    alone: Filters,
    candidates: Sequence[Candidate],
    eps: float | None,
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
    layout = _layout(mean, weight, alone, candidates) if means < POORLY else ""
    return Fit(means, unfolded, negated, like, layout)


def _layout(mean: Array, weight: Tensor, alone: Filters, candidates: Sequence[Candidate]) -> str:
    """The layout in which the weights imply these running means well; empty where none does."""
    best, found = LIKE_ANOTHER, ""
    for layout, summed in _layouts(weight, alone):
        r = _best(mean, [mixed(summed, one.handed_on) + (one.expected - one.summed) for one in candidates])
        if r > best:
            best, found = r, layout
    return found


def _layouts(weight: Tensor, alone: Filters) -> Iterator[tuple[str, Array]]:
    """Sums of the filters over positions, (outputs, inputs), were the weights stored in each of the other layouts."""
    n_outputs, n_inputs = alone.summed.shape
    if n_outputs < FEWEST_OF_A_LAYOUT:
        return
    if n_outputs == n_inputs:
        yield TRANSPOSED, alone.summed.T
    if n_inputs > 1 or weight.dim > 2:
        yield RESHAPED, weight.float64().reshape(-1, n_inputs, n_outputs).sum(axis=0).T


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
