"""Whether a plan describes the layer: the output that follows from it, compared with the real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bnprobe.probe.calls.affine_map import over_channels
from bnprobe.probe.calls.observation import InputReading
from bnprobe.probe.calls.vectors import gamma_beta

CHECKED_VALUES = 1 << 18
"""Values compared at the first call of a site: whole samples, at least one."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest difference between real and derived output, in units of the largest output."""

FAR = 100.0
"""Up to here rounding of a centred float32 number is lost in the tolerance."""

VISIBLE_ROUNDING = 1e-3
"""A step of rounding in the output from which this is read: float32 inputs 10,000 standard deviations from 0."""


def choose(before: Sequence[InputReading], y: object) -> tuple[InputReading, float, bool]:
    """The first plan that reproduces the output, its mismatch, and True; else the first plan, and False.

    Not the nearest one: an activation fused into the module moves the output away from every plan, and
    then nearness says nothing about which of them normalized.
    """
    for tried in before:
        gap = mismatch_of(tried, y)
        if gap <= _base(y) or gap <= tolerance_of(tried, y):
            return tried, gap, True
    return before[0], mismatch_of(before[0], y), False


def sample_of(rows: Tensor) -> Tensor:
    """A copy of the first samples, to compare the derived output with the real one."""
    per_sample = max(rows.shape[1] * rows.shape[2], 1)
    return rows[: max(CHECKED_VALUES // per_sample, 1)].clone()


def mismatch_of(before: InputReading, y: object) -> float:
    """Largest difference between formula and output on the sample, in units of the largest output.

    Infinite where the output cannot be compared; NaN never (non-finite values are left out).
    """
    plan, x = before.plan, before.sample
    if x is None or not isinstance(y, Tensor) or not y.is_floating_point() or not plan.fits(y):
        return float("inf")
    real = plan.rows(y.detach())[: x.shape[0]].to(torch.float64)
    if real.shape != x.shape:
        return float("inf")
    expected = expected_output(before, x.to(torch.float64))
    gap = (expected - real).abs_()
    both = torch.isfinite(gap)
    if both.all():  # as nearly always: then nothing need be picked
        return float(gap.amax() / largest_of(real)) if gap.numel() else 0.0
    if not both.any():
        return 0.0 if not torch.isfinite(real).any() else float("inf")
    return float(gap[both].amax() / largest_of(real[both]))


def largest_of(values: Tensor) -> float:
    """The largest size, at least so large that one can divide by it."""
    return max(float(values.abs().amax()), 1e-30)


def expected_output(before: InputReading, x: Tensor) -> Tensor:
    """The output that the plan's formula gives for rows x, float64."""
    if before.map is not None:
        return before.map[: x.shape[0]].on(x)
    plan, vectors = before.plan, before.vectors
    centred, square = over_channels(plan, x)
    gamma, beta = (torch.tensor(v, device=x.device)[:, None] for v in gamma_beta(plan, vectors))
    expected = centred / torch.sqrt(square + plan.eps) * gamma + beta
    return expected if before.factor is None else expected * before.factor[: x.shape[0]]


def _base(y: object) -> float:
    """The tolerance of the output's precision, whatever its values."""
    return TOLERANCE.get(y.dtype, 1e-4) if isinstance(y, Tensor) else 0.0


def tolerance_of(before: InputReading, y: object) -> float:
    """What rounding alone can cause: of the output itself, and of an input far from zero before centring."""
    if not isinstance(y, Tensor) or before.sample is None:
        return 0.0
    if not y.is_floating_point() or not before.plan.fits(y):
        return _base(y)
    real = before.plan.rows(y.detach())[: before.sample.shape[0]]
    finite = real[torch.isfinite(real)]
    largest = largest_of(finite) if finite.numel() else 1.0
    return _base(y) + 8 * float(torch.finfo(y.dtype).eps) * _moved(before) / largest


def loses_digits(before: InputReading) -> bool:
    """Whether centring rounds so coarsely that the derived output is not what came out."""
    if before.sample is None:
        return False
    # half precision is centred in float32, where its numbers are exact
    step = torch.finfo(torch.promote_types(before.sample.dtype, torch.float32)).eps
    return float(step) * _moved(before) > VISIBLE_ROUNDING


def _moved(before: InputReading) -> float:
    """How far centring moves the output, at most: what is rounded there is rounded relative to this."""
    plan, x, mapping = before.plan, before.sample, before.map
    if not plan.centred or x is None or not x.numel():
        return 0.0
    if mapping is not None:
        reading = before.seen_by_norm.moments
        far = np.where(reading.n > 0, np.maximum(np.abs(reading.low), np.abs(reading.high)), 0.0)
        return float(
            (np.abs(np.where(np.isfinite(mapping.scale), mapping.scale, 0.0)) * far).max(initial=0.0)
        )
    gamma, _ = gamma_beta(plan, before.vectors)
    largest = float(np.nanmax(np.abs(gamma), initial=0.0))
    if before.own is not None and before.valid is None:
        reading, (_, log_var) = before.reading.moments, before.own
        with np.errstate(all="ignore"):  # not finite: then it is measured below
            bound = max(np.abs(reading.low).max(), np.abs(reading.high).max()) / np.exp(log_var.low.min() / 2)
        if bound * largest < FAR:
            return float(bound) * largest
    exact = x.to(torch.float64)
    _, square = over_channels(plan, exact)
    moved = exact.abs().amax(1, keepdim=True) / torch.sqrt(square + plan.eps)
    finite = moved[torch.isfinite(moved)]
    return float(finite.amax()) * largest if finite.numel() else 0.0
