"""The affine map that a norm is at one call, and what it makes of statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls.histogram_scale import HistogramScale, unit
from bnprobe.probe.calls.vectors import Vectors, gamma_beta
from bnprobe.reductions import Affine, Reading
from bnprobe.stats import Histogram, Moments
from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Last:
    """What a site keeps of its last call, because it is mostly the same at the next one."""

    vectors: Vectors
    eps: float
    reference: HistogramScale
    map: Affine | None
    turns: bool


def unchanged_map(last: Last | None, plan: NormLayer, vectors: Vectors) -> Affine | None:
    """The map of the last call, if it holds for this one."""
    return last.map if last is not None and last.vectors is vectors and last.eps == plan.eps else None


def stored_map(plan: NormLayer, vectors: Vectors) -> Affine:
    """The one affine map per channel of a norm that uses its running statistics."""
    gamma, beta = gamma_beta(plan, vectors)
    assert vectors.running_mean is not None
    assert vectors.running_var is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        return Affine(vectors.running_mean, gamma / np.sqrt(vectors.running_var + plan.eps), beta)


def batch_map(plan: NormLayer, vectors: Vectors, reading: Reading, n_positions: int) -> Affine | None:
    """The affine map of this call, per channel or per (sample, channel); None where it varies inside a row.

    NaN where a non-finite value entered the statistics that normalize, as in the real output.
    """
    if not plan.pool.positions:
        return None
    mean, square = _normalizing(plan, reading, n_positions)
    if plan.pool.channels:
        mean, square = (np.repeat(v, plan.n_channels // plan.n_groups, axis=-1) for v in (mean, square))
    gamma, beta = gamma_beta(plan, vectors)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gamma / np.sqrt(square + plan.eps)
    offset = beta if scale.ndim == 1 else np.broadcast_to(beta, scale.shape)
    return Affine(mean if plan.centred else np.zeros_like(mean), scale, offset)


def _normalizing(plan: NormLayer, reading: Reading, n_positions: int) -> tuple[Array, Array]:
    """Mean and variance (mean square where not centered) with which the call normalizes itself.

    Of shape (C,) over samples, (N, C) in each sample; with G groups in place of C where channels are pooled. NaN where
    a value was not finite.
    """
    used, whole = reading.moments, reading.n_nonfinite == 0
    if reading.rows is not None:
        used, whole = reading.rows, reading.rows.n == n_positions
    if plan.pool.channels:
        groups = (*whole.shape[:-1], plan.n_groups, plan.n_channels // plan.n_groups)
        used, whole = used.reshape(*groups).pool(axis=-1), whole.reshape(groups).all(axis=-1)
    mean, var = used.mean, used.m2 / np.maximum(used.n, 1)
    usable = whole & (used.n > 0)
    if not usable.all():
        mean, var = np.where(usable, mean, np.nan), np.where(usable, var, np.nan)
    return mean, var if plan.centred else var + mean**2


def by_sample(plan: NormLayer, reading: Reading, n_positions: int) -> Array | None:
    """The mean and the log variance (+ eps) that the norm itself uses in each sample, (N, 2 G), or (N, 2 C) where channels
    are not pooled.

    None for norms over channels at each position. NaN in samples in which a value was not finite.
    """
    if reading.rows is None:
        return None
    mean, var = _normalizing(plan, reading, n_positions)
    with np.errstate(divide="ignore"):
        return np.concatenate([mean, np.log(var + plan.eps)], axis=1)


def inverse_variance(plan: NormLayer, rows: Tensor) -> Tensor:
    """1 / (var + eps) at each position of a norm over channels, shape (N, 1, P), or (N, C, P) in groups; float64."""
    _, square = over_channels(plan, rows.to(torch.float64))
    return 1 / (square + plan.eps)


def over_channels(plan: NormLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows x minus the mean over the channels of a group at each position, and the mean square of the result.

    Of shape (N, C, P), and (N, 1, P) where there is one group, else (N, C, P).
    """
    n, n_channels, n_positions = x.shape
    groups = (n, plan.n_groups, n_channels // plan.n_groups, n_positions)
    grouped = x.reshape(groups) if plan.n_groups > 1 else x
    dim = grouped.dim() - 2
    centred = grouped - grouped.mean(dim, keepdim=True) if plan.centred else grouped
    square = (centred**2).mean(dim, keepdim=True)
    if plan.n_groups > 1:
        return centred.flatten(1, 2), square.expand_as(centred).flatten(1, 2)
    return centred, square


def after(map_: Affine, pre: Moments) -> Moments:
    """Moments after a map, from those before it."""
    return pre.affine(map_.scale, map_.offset, map_.origin)


def nonfinite_after(before: Reading, post: Moments) -> Array:
    """How many values a map made or left not finite."""
    return before.moments.n + before.n_nonfinite - post.n


def turned(map_: Affine, reference: HistogramScale, counts: Array) -> Array:
    """Counts of the output on its own scale, if the map takes the input's scale to the output's."""
    there = Histogram(reference.centre[None], reference.scale[None], counts[None])
    counts_there: Array = there.affine(map_.scale, map_.offset, map_.origin).counts[0]
    return counts_there


def turns(fixed: Affine | None, reference: HistogramScale, last: Last | None) -> bool:
    """Whether the output's counts, on the scale of (beta, gamma), are the input's counts, mapped.

    So when the map takes the input's reference to the output's: stored statistics, unchanged since
    the first call.
    """
    if fixed is None:
        return False
    if last is not None and last.map is fixed and last.reference is reference:
        return last.turns
    if not np.array_equal(fixed.origin, reference.centre):
        return False
    flat = fixed.scale == 0
    scale = np.where(flat, 1.0, np.abs(fixed.scale) * reference.scale)
    return np.array_equal(fixed.offset, reference.beta) and np.allclose(
        scale, unit(reference.gamma), rtol=1e-12, atol=0
    )
