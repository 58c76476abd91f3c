"""Inputs changed before the model is given them: each edit of inputs as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bnprobe.probe.batches import each_batch, parts
from bnprobe.rules.edits import CleanInputs, OfInputs, ResizeInputs, SmoothInputs, UndoMap

OfTensor = Callable[[Tensor], Tensor]


def fed(edits: Iterable[OfInputs], batch: Any) -> Any:
    """The batch with its first tensor of floating-point numbers changed; the target stays."""
    act = [_ACTS[type(edit)](edit) for edit in edits]
    x, _ = parts(batch)
    changed, _ = _with_first(x, lambda tensor: reduce(lambda value, one: one(value), act, tensor))
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return (changed, *batch[1:])
    return changed


class Fed:
    """Batches, each with its inputs changed; to be read as often as those are."""

    def __init__(self, batches: Iterable[Any], edits: tuple[OfInputs, ...]) -> None:
        self._batches, self._edits = batches, edits

    def __iter__(self) -> Iterator[Any]:
        return (fed(self._edits, batch) for batch in each_batch(self._batches))


def _with_first(value: Any, act: OfTensor) -> tuple[Any, bool]:
    """The same containers with the first floating-point tensor changed, and whether there was one."""
    if isinstance(value, Tensor):
        return (act(value), True) if value.is_floating_point() else (value, False)
    done = False
    if isinstance(value, Mapping):
        changed: dict[Any, Any] = {}
        for name, item in value.items():
            changed[name], done = (item, done) if done else _with_first(item, act)
        return changed, done
    if isinstance(value, tuple | list):
        items = []
        for item in value:
            new, done = (item, done) if done else _with_first(item, act)
            items.append(new)
        return type(value)(items), done
    return value, False


def _undo_map(edit: UndoMap) -> OfTensor:
    def undone(x: Tensor) -> Tensor:
        shape = (-1, *[1] * (x.dim() - 2))
        offset, gain = (
            torch.tensor(v, dtype=x.dtype, device=x.device).view(shape) for v in (edit.offset, edit.gain)
        )
        trained = (x - offset) / gain
        return trained.flip(1) if edit.reverse else trained

    return undone


def _clean(edit: CleanInputs) -> OfTensor:
    return lambda x: torch.nan_to_num(x, 0.0, 0.0, 0.0)


def _resized(edit: ResizeInputs) -> OfTensor:
    return lambda x: F.interpolate(x, scale_factor=edit.factor, mode="bilinear", antialias=True)


def _smoothed(edit: SmoothInputs) -> OfTensor:
    return lambda x: F.avg_pool2d(x, 3, 1, 1)


_ACTS: dict[type[OfInputs], Callable[[Any], OfTensor]] = {
    UndoMap: _undo_map,
    CleanInputs: _clean,
    ResizeInputs: _resized,
    SmoothInputs: _smoothed,
}
"""From a kind of edit to what makes of it a function of a tensor."""
