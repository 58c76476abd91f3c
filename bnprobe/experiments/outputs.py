"""How two outputs of a model for the same batch differ, one number per sample. N samples, K classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.errors import BnprobeError, said
from bnprobe.probe.tensors import first_tensor
from bnprobe.recording.terms import LOSS
from bnprobe.stats.moments import Array

Flags = npt.NDArray[np.bool_]

Metric = Callable[[Any, Any], Any]
"""From the output and the target of a batch to one number per sample, shape (N,); larger is better."""


class NoComparison(BnprobeError):
    """Two outputs that cannot be compared."""


class Change(NamedTuple):
    """Per sample, shape (N,); NaN where it is not defined for such an output."""

    agreement: Array
    """Share of positions (one for a classifier) where the largest score is that of the same class; 0 to 1."""
    kl: Array
    """Kullback-Leibler divergence of the softmax after from the softmax before, mean over positions, in nats."""
    relative: Array
    """Norm of the difference over the norm of the output before."""
    largest: Array
    """Largest difference of one number of the output."""


def change(before: Any, after: Any, target: Any = None) -> Change:
    """The change from one output to the other. Both are reduced in float32 or wider on the device they are on."""
    a, b = scores(before), scores(after)
    if a is None or b is None or a.shape != b.shape or not a.dim():
        raise NoComparison(
            "the model's output holds no tensor, or one whose shape changes, so two outputs cannot be compared. Pass "
            "call=, a function of (model, batch) that returns one tensor with a row per sample."
        )
    a, b = _wide(a), _wide(b)
    flat_a, flat_b = a.flatten(1) if a.dim() > 1 else a[:, None], b.flatten(1) if b.dim() > 1 else b[:, None]
    size = torch.linalg.vector_norm(flat_a, dim=1)
    difference = flat_b - flat_a
    relative = torch.linalg.vector_norm(difference, dim=1) / size.clamp_min(torch.finfo(size.dtype).tiny)
    largest = torch.linalg.vector_norm(difference, torch.inf, dim=1)
    axis = class_axis(a, target)
    if axis is None:
        nothing = np.full(len(a), np.nan)
        return Change(nothing, nothing, _array(relative), _array(largest))
    same = (a.argmax(axis) == b.argmax(axis)).float()
    p, q = a.log_softmax(axis), b.log_softmax(axis)
    kl = (p.exp() * (p - q)).sum(axis).clamp_min(0)
    return Change(_array(_per_sample(same)), _array(_per_sample(kl)), _array(relative), _array(largest))


def holds_nan(output: Any) -> Flags:
    """Which samples of an output hold NaN, shape (N,): the largest of their scores is none."""
    a = scores(output)
    if a is None or not a.dim():
        return np.zeros(0, dtype=np.bool_)
    return (a.isnan().flatten(1).any(1) if a.dim() > 1 else a.isnan()).cpu().numpy()


def said_of_nan(n: int, of: int, when: str) -> list[str]:
    """A sentence where outputs of `n` samples hold NaN."""
    if not n:
        return []
    return [
        f"The outputs of {n:,} of {of:,} samples hold NaN {when}: their decisions mean nothing. Record the model: "
        "bnprobe.report says in which norm that begins."
    ]


def correct(output: Any, target: Any) -> Array | None:
    """Share of positions (one for a classifier) whose largest score is the target's class; None if these are no classes."""
    a = scores(output)
    if (
        a is None
        or not isinstance(target, Tensor)
        or target.is_floating_point()
        or target.dtype == torch.bool
    ):
        return None
    axis = class_axis(a, target)
    if axis is None or target.shape != a.shape[:axis] + a.shape[axis + 1 :]:
        return None
    right = (a.argmax(axis) == target.to(a.device)).double()
    counted = (target >= 0).to(a.device)  # torch's ignore_index is -100
    counted = counted.flatten(1) if counted.dim() > 1 else counted[:, None]
    right = right.flatten(1) if right.dim() > 1 else right[:, None]
    return _array((right * counted).sum(1) / counted.sum(1))


def token_losses(output: Any, target: Any) -> Array:
    """The cross entropy of each position, in nats, shape (N, positions); NaN where the target is negative, as -100.

    Raises NoComparison where the output scores no classes, or the target is none of them.
    """
    a = scores(output)
    whole = isinstance(target, Tensor) and not target.is_floating_point() and target.dtype != torch.bool
    axis = class_axis(a, target) if a is not None and whole else None
    if a is None or axis is None or target.shape != a.shape[:axis] + a.shape[axis + 1 :]:
        raise NoComparison(
            "a loss needs outputs that score classes or tokens, and targets that are such, or tokens in the batch. Pass a "
            "metric of your own, a function of (output, target)."
        )
    logs = _wide(a.movedim(axis, -1)).log_softmax(-1)
    target = target.to(a.device)
    found = -logs.gather(-1, target.clamp_min(0)[..., None])[..., 0]
    return _array(found.masked_fill(target < 0, float("nan")).reshape(len(a), -1))


def token_loss(output: Any, target: Any) -> Array:
    """Its mean over the positions of each sample, shape (N,)."""
    return np.asarray(np.nanmean(token_losses(output, target), axis=1))


token_loss.__name__ = LOSS


def rest_loss(output: Any, target: Any) -> Array:
    """The same without the first position that counts, shape (N,); NaN where there is but one."""
    losses = token_losses(output, target)
    counted = np.cumsum(~np.isnan(losses), axis=1)
    rest = np.where(counted > 1, losses, np.nan)
    n = np.maximum((counted[:, -1] - 1), 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nansum(rest, axis=1) / n)


def scores(output: Any) -> Tensor | None:
    """The tensor that decides, without its history; see `deciding`."""
    found = deciding(output)
    return None if found is None else found.detach()


def deciding(output: Any) -> Tensor | None:
    """The tensor that decides: `logits` or `out` of an output with names, else its first tensor."""
    named = output if isinstance(output, Mapping) else {}
    found = next((named[name] for name in ("logits", "out") if isinstance(named.get(name), Tensor)), None)
    found = getattr(output, "logits", None) if found is None else found
    found = found if isinstance(found, Tensor) else first_tensor(output)
    return found if found is not None and found.is_floating_point() else None


def class_axis(a: Tensor, target: Any = None) -> int | None:
    """The dimension of the classes: where the target leaves one out; else 1 for (N, K) and images, the last for tokens."""
    if a.dim() < 2 or (a.dim() == 2 and a.shape[1] == 1):
        return None
    if isinstance(target, Tensor) and target.dim() == a.dim() - 1:
        for axis in (1, a.dim() - 1):
            if target.shape == a.shape[:axis] + a.shape[axis + 1 :]:
                return axis
    return {2: 1, 3: 2, 4: 1}.get(a.dim())


def n_classes(output: Any) -> int | None:
    """How many classes an output scores; None if it scores none."""
    a = scores(output)
    axis = None if a is None else class_axis(a)
    return None if a is None or axis is None else a.shape[axis]


def per_sample(metric: Metric, output: Any, target: Any) -> Array:
    """What the user's metric says of a batch, checked: one finite number per sample."""
    name = getattr(metric, "__name__", type(metric).__name__)
    try:
        values = metric(output, target)
    except Exception as error:  # the user's function may raise anything
        reason = said(error)
        raise BnprobeError(
            f"metric {name} failed on a batch ({reason}). It is called with the output and the target, which is None for "
            "batches without one."
        ) from error
    values = values.detach().cpu() if isinstance(values, Tensor) else values
    a = scores(output)
    n = None if a is None or not a.dim() else len(a)
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty(())
    if found.ndim != 1 or n not in (None, len(found)):
        got = f"shape {found.shape}" if found.ndim else f"one {type(values).__name__}"
        raise BnprobeError(
            f"metric {name} must return one number per sample, shape ({'N' if n is None else n},), got {got}. Leave out its "
            "mean over samples (for a loss: reduction='none')."
        )
    if not np.isfinite(found).all():
        where = int(np.flatnonzero(~np.isfinite(found))[0])
        raise BnprobeError(
            f"metric {name} returned {found[where]} for sample {where} of a batch. Return a finite number for each, "
            "or leave such samples out of the batches."
        )
    return found


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _per_sample(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _array(values: Tensor) -> Array:
    return values.double().cpu().numpy()
