"""What the first call of a norm shows of its formula: whether it fits, what does instead, and rows without values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls.alternatives import Explanation, Search, came_through_half
from bnprobe.probe.calls.formula_check import TOLERANCE, expected_output, tolerance_of
from bnprobe.probe.calls.observation import InputReading
from bnprobe.probe.calls.vectors import gamma_beta
from bnprobe.recording import OutputCheck
from bnprobe.stats.moments import Array

Mask = npt.NDArray[np.bool_]

VISIBLE = 0.05
"""Share of the largest output that the formula must give somewhere in a row, so that a row of zeros is a loss."""

ENDS = {
    "tanh": (True, True),
    "sigmoid": (True, True),
    "hardsigmoid": (True, True),
    "clamp": (True, True),
    "relu6": (False, True),
}
"""Whether outputs that stick at the smallest, and at the largest value, are saturated, by what follows the norm."""


def output_check(before: InputReading, y: object, fits: bool) -> OutputCheck | None:
    """The check of the first samples; None where nothing can be compared."""
    x, plan = before.sample, before.plan
    if x is None or not isinstance(y, Tensor) or not y.is_floating_point() or not plan.fits(y):
        return None
    rows = plan.rows(y.detach())
    whole, real = rows.shape[0] == x.shape[0], rows[: x.shape[0]]
    if real.shape != x.shape or not x.numel():
        return None
    counts = None if before.valid is None else before.valid.mask[: len(x)]
    dtype = str(x.dtype).removeprefix("torch.")
    constant, zeros = _constant_rows(plan, x, counts), _zero_positions(plan, x, y.dim(), counts)
    if fits:
        return OutputCheck(dtype, True, (), None, constant, zeros, **before.copies._asdict())
    inputs, outputs = (tensor.to(torch.float64).cpu().numpy() for tensor in (x, real))
    lost = _rows_of_zeros(before, x, inputs, outputs)
    found = _explained(before, y, inputs, outputs, np.logical_not(lost)[:, None, :], whole)
    return OutputCheck(
        dtype,
        False,
        deviations=() if found is None else found.deviations,
        remaining=None if found is None else found.remaining,
        constant_rows=constant,
        zero_positions=zeros,
        zero_rows=_share(lost, counts),
        saturated=_saturated(outputs, found),
        **before.copies._asdict(),
    )


def _explained(
    before: InputReading, y: Tensor, x: Array, real: Array, usable: npt.NDArray[np.bool_], whole: bool
) -> Explanation | None:
    """The deviations that give the output, in the precision of the output, or in a lower one that it went through."""
    plan, vectors, moments = before.plan, before.vectors, before.seen_by_norm.moments
    gamma, beta = gamma_beta(plan, vectors)
    per_channel = (moments.mean, moments.m2 / np.maximum(moments.n, 1))
    if plan.uses_running:
        assert vectors.running_mean is not None
        assert vectors.running_var is not None
        per_channel = vectors.running_mean, vectors.running_var
    usable = np.broadcast_to(usable, x.shape)
    half = came_through_half(np.where(usable, real, np.nan), gamma, beta) if y.dtype == torch.float32 else ""
    tolerance = max(tolerance_of(before, y), TOLERANCE[getattr(torch, half)] if half else 0.0)
    found = Search(plan, x, real, gamma, beta, per_channel, usable, tolerance, whole).run()
    if found is None or not half:
        return found
    return Explanation((*found.deviations, f"in {half}"), found.remaining)


def _zero_positions(plan: NormLayer, x: Tensor, n_dims: int, counts: Mask | None) -> float:
    """Share of a sequence's positions where all channels are 0, of norms that pool positions.

    Positions of images are not looked at: the background of a picture may well be 0 in all channels. `counts`,
    shape (N, P), leaves positions out.
    """
    if not plan.pool.positions or n_dims != 3 or x.shape[1] == 1:
        return 0.0
    return _share((x == 0).all(1).cpu().numpy(), counts)


def _constant_rows(plan: NormLayer, x: Tensor, counts: Mask | None) -> float:
    """Share of the statistics of single samples that are taken of equal values."""
    pool = plan.pool
    if pool.samples:
        return 0.0
    n, c, p = x.shape
    grouped = x.reshape(n, plan.n_groups, c // plan.n_groups, p) if pool.channels else x[:, :, None]
    dims = [dim for dim, pooled in ((2, pool.channels), (3, pool.positions)) if pooled]
    if grouped.shape[dims[0]] * (grouped.shape[dims[-1]] if len(dims) > 1 else 1) == 1:
        return 0.0
    constant = (grouped.amax(dims) == grouped.amin(dims)).cpu().numpy()
    if pool.positions or counts is None:
        return _share(constant, None)
    return _share(constant, np.broadcast_to(counts[:, None], constant.shape))


def _share(found: Mask, counts: Mask | None) -> float:
    """Share of those that count; 0 where none does."""
    found = found if counts is None else found[counts]
    return float(found.mean()) if found.size else 0.0


def _rows_of_zeros(before: InputReading, sample: Tensor, x: Array, real: Array) -> npt.NDArray[np.bool_]:
    """Positions (N, P) whose outputs are all 0, or all β, although the formula gives values there."""
    plan = before.plan
    if not plan.pool.channels or plan.pool.samples or plan.n_channels == 1:
        return np.zeros((x.shape[0], x.shape[2]), dtype=bool)
    _, beta = gamma_beta(plan, before.vectors)
    of_beta = (real == beta[None, :, None].astype(np.float32)).all(1)
    flat: npt.NDArray[np.bool_] = np.logical_or((real == 0).all(1), of_beta)
    if flat.any():
        expected = expected_output(before, sample.to(torch.float64)).cpu().numpy() - beta[None, :, None]
        known = np.where(np.isfinite(expected), expected, 0.0)
        flat = flat & (known.max(1) > VISIBLE * np.abs(real[np.isfinite(real)]).max(initial=0.0))
    return flat


def _saturated(real: Array, found: Explanation | None) -> float:
    """Share of outputs at the ends of what follows the norm; where that is not known, of those that are exactly equal."""
    last = found.deviations[-1].partition("(")[0] if found is not None and found.deviations else ""
    known = real[np.isfinite(real)]
    if not known.size or (found is not None and last not in ENDS):
        return 0.0
    low, high = known.min(), known.max()
    near = 1e-3 * (high - low) if last in ("tanh", "sigmoid") else 0.0
    at_low, at_high = ENDS.get(last, (low != 0, high != 0))
    ends = np.mean(known <= low + near) * at_low + np.mean(known >= high - near) * at_high
    return float(ends) if low < high else 0.0
