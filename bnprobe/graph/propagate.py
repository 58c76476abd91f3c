"""What a norm's input must be on average, by the norm, the activation and the weights before it.

The norms before hand on N(beta, gamma^2) per channel, or so it is taken; the activation makes of it what
`stats.gaussian` says, and the weights mix it, the zeros at the border included. That far the mean is
exact (it is linear). The variance is that of independent inputs: no covariance between channels, nor
between positions of one channel; what the borders take from the mean at their positions is counted in.
A sum of norms and skips is taken as a Gaussian again, of the summed means and, as if independent, variances.
Data-free bias correction, Nagel et al. 2019, arXiv:1906.04721, section 4.2, with |gamma| for gamma.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bnprobe.graph.geometry import Geometry, Source, SourceKey
from bnprobe.graph.padding import averaged, grouped, mean_square
from bnprobe.recording.neighbours import Implied
from bnprobe.stats import gaussian
from bnprobe.stats.moments import Array

SEED = 0
"""Of the permutation in the control: the same one every time, and nobody's random state is touched."""


@dataclass(frozen=True)
class Reaching:
    """What reaches some weights: mean and variance per input channel, (C,); `signed`: the mean with gamma for |gamma|.

    The variance is NaN where only the mean is known.
    """

    mean: Array
    var: Array
    signed: Array


def implied(weight: Array, bias: Array | None, geometry: Geometry, values: Reaching | None) -> Implied | None:
    """Mean and variance of what the weights make of these values, with four controls; shapes (C,).

    None where what reaches the weights is not known, or has another number of channels.
    """
    parts = grouped(weight, geometry)
    n_inputs = parts.shape[0] * parts.shape[2]
    if values is None or values.mean.shape != (n_inputs,):
        return None
    order = np.random.default_rng(SEED).permutation(n_inputs)
    constant = np.full(n_inputs, values.mean.mean())
    added = 0.0 if bias is None else bias
    summed = averaged(weight, geometry)
    whole = parts.sum(axis=tuple(range(3, parts.ndim)))
    mean = _mixed(summed, values.mean)
    return Implied(
        mean=mean + added,
        var=_variance(weight, geometry, values, mean),
        mean_permuted=_mixed(summed, values.mean[order]) + added,
        mean_constant=_mixed(summed, constant) + added,
        mean_signed=_mixed(summed, values.signed) + added,
        mean_unpadded=_mixed(whole, values.mean) + added,
    )


def _mixed(weight: Array, values: Array) -> Array:
    """(groups, out / g, in / g) times (in,), one after the other: (out,)."""
    mixed: Array = np.einsum("goc,gc->go", weight, values.reshape(weight.shape[0], weight.shape[2]))
    return mixed.ravel()


def _variance(weight: Array, geometry: Geometry, values: Reaching, mean: Array) -> Array:
    """Over positions and samples: what independent inputs add up to, and the border's effect on the `mean`."""
    within = _mixed(averaged(weight**2, geometry), values.var)
    parts = grouped(weight, geometry)
    response = np.einsum("goc...,gc->go...", parts, values.mean.reshape(parts.shape[0], parts.shape[2]))
    response = np.concatenate(response)
    return within + np.maximum(mean_square(response, weight, geometry) - mean**2, 0.0)


def reaching(source: Source, known: dict[SourceKey, Reaching | None] | None = None) -> Reaching | None:
    """What a source hands on; an average over positions leaves the means as they are.

    None where it is not a function of norms that is known: an input of the model, an activation without a formula, a maximum
    over positions. `known` is what was found for other sources of the same pass, which have parts in common.
    """
    known = {} if known is None else known
    key = source.key
    if key not in known:
        values = None if source.pool not in ("", "avg") else _after_activation(source, known)
        if values is not None and source.pool:
            values = replace(values, var=np.full(values.mean.shape, np.nan))
        known[key] = values
    return known[key]


def _after_activation(source: Source, found: dict[SourceKey, Reaching | None]) -> Reaching | None:
    before = _before_activation(source, found)
    if before is None or source.activation == "none":
        return before
    if not gaussian.is_known(source.activation) or np.isnan(before.var).any():
        return None
    mean, square = gaussian.moments(source.activation, before.mean, np.sqrt(before.var))
    signed = gaussian.moments(source.activation, before.signed, np.sqrt(before.var))[0]
    if source.what == "norm":
        signed = gaussian.signed_mean(source.activation, *_affine(source))
    return Reaching(mean, np.maximum(square - mean**2, 0.0), signed)


def _before_activation(source: Source, found: dict[SourceKey, Reaching | None]) -> Reaching | None:
    """A norm's output, channels of several sources side by side, or the sum of independent sources."""
    if source.what == "norm":
        beta, gamma = _affine(source)
        return Reaching(beta, gamma**2, beta)
    if source.what not in ("concat", "sum") or not source.parts:
        return None
    parts = [reaching(part, found) for part in source.parts]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    if source.what == "concat":
        return Reaching(*(np.concatenate(arrays) for arrays in _columns(known)))
    if len({part.mean.shape for part in known}) > 1:
        return None
    return Reaching(*(np.sum(arrays, axis=0) for arrays in _columns(known)))


def _affine(source: Source) -> tuple[Array, Array]:
    """beta and gamma; 0 and 1 where the norm has none."""
    beta = np.zeros(source.n_channels) if source.beta is None else source.beta
    gamma = np.ones(source.n_channels) if source.gamma is None else source.gamma
    return beta, gamma


def _columns(parts: list[Reaching]) -> list[list[Array]]:
    return [[getattr(part, name) for part in parts] for name in ("mean", "var", "signed")]
