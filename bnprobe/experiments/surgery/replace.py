"""Batch norms replaced by their affine map, by frozen statistics, or by group norm that starts where they were; measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError
from bnprobe.experiments.outputs import Metric
from bnprobe.experiments.run import Batches, Call
from bnprobe.experiments.surgery.converted import Converted, Row, converted, put_in_place, rows_of
from bnprobe.experiments.surgery.layers import ChannelAffine, FrozenNorm
from bnprobe.experiments.surgery.look import copied, difference, looked
from bnprobe.experiments.surgery.passes import run_all
from bnprobe.norms import NormLayer
from bnprobe.probe.survey.unwrap import unwrap
from bnprobe.stats.moments import Array, Moments

WAYS = ("affine", "frozen", "group")

MOST_GROUPS = 32
"""Of a group norm, as Wu & He 2018 (arXiv:1803.08494) recommend."""
SMALLEST_GROUP = 4
"""Channels of a group, where nothing is said: with fewer, a group norm is nearly an instance norm."""


def replace_norms(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    by: str,
    layers: str | Sequence[str] | None = None,
    groups: int | None = None,
    metric: Metric | None = None,
    call: Call | None = None,
) -> Converted:
    """Replace batch norms in a copy of the model, and measure what that changes.

    "affine": γ / √(running_var + eps) · x + the constant, without statistics: the same outputs up to rounding.
    "frozen": the same formula, with statistics that train mode neither uses nor updates: the same outputs, bit for bit,
    and γ and β can still learn. "group": a group norm, whose outputs do not depend on the batch. Its weight and bias are
    set so that each channel of its output has the mean and standard deviation that the batch norm's had on these batches;
    norm after norm, each on what the group norms before it give. That keeps scales, not outputs: expect a loss, which the
    effect tells, and train on from there.

    Args:
        model: Any `torch.nn.Module` in eval mode. It is left as it was.
        batches: A list or loader of batches, as for `bnprobe.record`, with targets where the metric needs them. It is read
            several times, with "group" once for each norm. For "group" the effect is measured on the samples it was made
            from.
        by: "affine", "frozen" or "group".
        layers: Shell-style pattern or patterns of the paths of norms to replace. None replaces all batch norms.
        groups: For "group": number of groups, a divisor of every number of channels. Default: the most, up to 32, that leave
            four channels in each.
        metric: Function of (output, target) that returns one number per sample, shape (N,); see `Plan.preview`.
        call: Function of (model, batch) that runs one batch and returns the output, where `model(x)` does not.

    Returns:
        The new model, a row per norm, and the effect on the model's outputs. What stands in for a norm is a
        `bnprobe.experiments.surgery.layers.ChannelAffine` or `FrozenNorm`, or an `nn.GroupNorm`.

    Raises:
        NoNormLayers: No norm can be replaced, or none matches `layers`; names the reason.
        NothingRecorded: There were no samples.
        BnprobeError: `by` or `groups` is out of range, the model is in train mode, or it cannot be copied.

    Example:
        >>> import torch, bnprobe
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> found = bnprobe.replace_norms(model, [torch.randn(4, 3, 9, 9)], by="frozen")
        >>> found.model[1], found.effect.largest_change
        (FrozenNorm(8, eps=1e-05), 0.0)
    """
    if by not in WAYS:
        raise BnprobeError(f"by={by!r} is not one of {', '.join(WAYS)}. Pass one of these.")
    if groups is not None and (by != "group" or isinstance(groups, bool) or groups < 1):
        raise BnprobeError(f"groups={groups!r} is for by='group', a whole number from 1 on. Leave it out.")
    new = copied(model, "replace_norms")
    seen = Batches(new, batches, "replacing", 3)
    with looked(new, seen, call) as look:
        rows = rows_of(look, layers, "replaced")
    wanted = [row for row in rows.values() if not row.why]
    if new in (row.norm.module for row in wanted):
        raise BnprobeError("the model is itself a norm, and nothing holds it. Wrap it: nn.Sequential(norm).")
    if by == "group":
        _by_group_norm(new, wanted, groups, seen, call)
    else:
        _by_same_map(new, wanted, ChannelAffine if by == "affine" else FrozenNorm, seen, call)
    return converted(unwrap(model)[0], new, rows.values(), batches, metric, call, same=by != "group")


def _by_same_map(
    model: nn.Module, rows: list[Row], cls: type[nn.Module], batches: Batches, call: Call | None
) -> None:
    """Layers that compute what the norm computes: run beside it, then put in its place."""
    made = [(row, _affine(row) if cls is ChannelAffine else _frozen(row.norm.plan)) for row in rows]

    def beside(row: Row, layer: nn.Module) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, output: Tensor) -> None:
            row.saw(*difference(layer(*args), output))

        return after

    run_all(
        model,
        batches,
        call,
        (row.norm.module.register_forward_hook(beside(row, layer)) for row, layer in made),
    )
    for row, layer in made:
        put_in_place(model, row.norm.module, layer)
        row.done = f"replaced by {cls.__name__}"


def _affine(row: Row) -> ChannelAffine:
    scale, shift = (_like(v, row.norm.plan) for v in row.norm.affine())
    return ChannelAffine(scale, shift)


def _frozen(plan: NormLayer) -> FrozenNorm:
    mean, var = plan.running_mean, plan.running_var
    assert mean is not None
    assert var is not None
    copies = [
        None if v is None else v.detach().clone().reshape(-1) for v in (mean, var, plan.weight, plan.bias)
    ]
    return FrozenNorm(copies[0], copies[1], copies[2], copies[3], plan.eps)  # type: ignore[arg-type]


def _like(values: Array, plan: NormLayer) -> Tensor:
    """A vector with the type and device of the norm's own."""
    own = plan.running_mean if plan.weight is None else plan.weight
    assert own is not None
    return torch.from_numpy(np.ascontiguousarray(values)).to(own.device, own.dtype)


# Group norm


def _by_group_norm(
    model: nn.Module, rows: list[Row], groups: int | None, batches: Batches, call: Call | None
) -> None:
    """Norm after norm: what the batch norm gave in the old model is the target for what the group norm gives in the new."""
    layers = [_group_norm(row, groups) for row in rows]
    targets = _output_moments(model, [row.norm.module for row in rows], batches, call)
    for row, layer, target in zip(rows, layers, targets, strict=True):
        put_in_place(model, row.norm.module, layer)
        (given,) = _output_moments(model, [layer], batches, call)
        sign = np.where(row.norm.affine()[0] < 0, -1.0, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = sign * np.sqrt(target.m2 / target.n) / np.sqrt(given.m2 / given.n)
        weight = np.where(np.isfinite(weight), weight, 0.0)
        layer.weight.data.copy_(_like(weight, row.norm.plan))
        layer.bias.data.copy_(_like(target.mean - weight * given.mean, row.norm.plan))
        row.done = f"replaced by GroupNorm({layer.num_groups}, {layer.num_channels})"
        row.change = row.size = float("nan")


def _group_norm(row: Row, groups: int | None) -> nn.GroupNorm:
    plan = row.norm.plan
    c = plan.n_channels
    if groups is None:
        groups = max(
            g for g in range(1, MOST_GROUPS + 1) if c % g == 0 and (g == 1 or c // g >= SMALLEST_GROUP)
        )
    if c % groups:
        raise BnprobeError(
            f"groups={groups} does not divide the {c} channels of {row.norm.path}. Pass a common divisor."
        )
    own = _like(np.ones(1), plan)
    return nn.GroupNorm(groups, c, eps=plan.eps, device=own.device, dtype=own.dtype)


def _output_moments(
    model: nn.Module, modules: list[nn.Module], batches: Batches, call: Call | None
) -> list[Moments]:
    """Mean and squares of each channel of what these modules return, over all batches."""
    found: dict[int, Moments] = {}

    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        values = output.detach().double().cpu().reshape(len(output), output.shape[1], -1).transpose(0, 1)
        moments = Moments.of(values.reshape(output.shape[1], -1).numpy(), axis=1)
        known = found.get(id(module))
        found[id(module)] = moments if known is None else known.merge(moments)

    run_all(model, batches, call, (module.register_forward_hook(after) for module in modules))
    return [found[id(module)] for module in modules]
