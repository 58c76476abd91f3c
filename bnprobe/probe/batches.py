"""What a batch may be: x or (x, y), where x is a tensor, positional arguments or keyword arguments of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bnprobe.errors import BnprobeError


def each_batch(batches: Any) -> Iterator[Any]:
    """The batches, one after another."""
    if _is_one_batch(batches):
        yield batches
        return
    what = type(batches).__name__
    if isinstance(batches, Tensor):
        what = f"a tensor of shape {tuple(batches.shape)}"
    elif not isinstance(batches, str | bytes | Mapping):
        try:
            each = iter(batches)  # also of a dataset without __iter__
        except TypeError:
            pass
        else:
            yield from each
            return
    raise BnprobeError(
        f"batches must be a loader or a list of batches, got {what}. Wrap a single batch in a list: [batch]."
    )


def _is_one_batch(batches: Any) -> bool:
    """Whether these are two tensors (x, y), the inputs of one batch and their targets.

    Raises BnprobeError where they may as well be two batches, or where labels would run as a batch.
    """
    if not (isinstance(batches, tuple | list) and len(batches) == 2):
        return False
    x, y = batches
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return False
    targets = 0 < y.dim() <= x.dim() and len(y) == len(x)
    targets = targets and (y.dim() < x.dim() or (not y.is_floating_point() and x.is_floating_point()))
    if isinstance(batches, tuple) and targets:
        return True
    labels = targets and y.dim() == 1 and not y.is_floating_point()
    if isinstance(batches, list) and not labels:
        return False
    shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
    raise BnprobeError(
        f"batches is a {type(batches).__name__} of two tensors, of shapes {shapes}: as one batch of inputs and targets pass "
        "[(x, y)], as two batches [x1, x2]"
        + (", and [(x,), (y,)] if the second is no labels." if labels else ".")
    )


def parts(batch: Any) -> tuple[Any, Any]:
    """The input and the target of a batch; the target is None if there is only one element."""
    if isinstance(batch, tuple | list) and len(batch) in (1, 2):
        return batch[0], batch[1] if len(batch) == 2 else None
    return batch, None


def arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for the model; see `record` for what an input may be."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (x, {}) if isinstance(x, tuple) else ((x,), {})


def moved(value: Any, device: torch.device) -> Any:
    """The same containers, with tensors on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: moved(item, device) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(moved(item, device) for item in value)
    return value
