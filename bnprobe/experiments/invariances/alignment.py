"""Which values of two passes must be equal, wherever in a tensor samples and positions lie.

N samples, T positions. Inside a model they may stand in any dimension, or in one together, so every reading that the sizes
allow is tried, and the tensors part only where they do in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Pairs = Iterator[tuple[Tensor, Tensor]]

Align = Callable[[Tensor, Tensor], Pairs]
"""From a tensor of the first pass and the same of the second to the parts that must be equal, in each possible reading."""


def earlier(n: int, t: int) -> Align:
    """All but the last of T positions."""

    def aligned(a: Tensor, b: Tensor) -> Pairs:
        if a.shape != b.shape:
            return
        for one, other, dim in _split(a, b, n, t, t):
            yield one.narrow(dim, 0, t - 1), other.narrow(dim, 0, t - 1)

    return aligned


def without_padding(n: int, t: int, wide: int, start: int) -> Align:
    """Of `wide` positions in the second pass the T from `start` on, which are all that the first has."""

    def aligned(a: Tensor, b: Tensor) -> Pairs:
        if a.shape == b.shape:
            yield a, b
        if a.dim() != b.dim():
            return
        if all(
            one == other or (one, other) == (t, wide) for one, other in zip(a.shape, b.shape, strict=True)
        ):
            for dim in range(a.dim()):
                if a.shape[dim] != b.shape[dim]:
                    b = b.narrow(dim, start, t)
            yield a, b
            return
        for one, other, dim in _split(a, b, n, t, wide):
            if other.shape[dim] == wide:
                yield one, other.narrow(dim, start, t)

    return aligned


def first_samples(few: int, n: int) -> Align:
    """Of N samples in the second pass the first `few`, which are all that the first has."""

    def aligned(a: Tensor, b: Tensor) -> Pairs:
        if a.shape == b.shape:
            yield a, b
        if a.dim() != b.dim():
            return
        apart = [dim for dim in range(a.dim()) if a.shape[dim] != b.shape[dim]]
        if len(apart) != 1 or a.shape[apart[0]] * n != b.shape[apart[0]] * few:
            return
        (dim,) = apart
        yield a, b.narrow(dim, 0, a.shape[dim])
        if a.shape[dim] > few:  # positions before samples
            rest = a.shape[dim] // few
            split = unfolded(b, dim, rest, n).narrow(dim + 1, 0, few)
            yield a, split.flatten(dim, dim + 1)

    return aligned


def _split(a: Tensor, b: Tensor, n: int, t: int, wide: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """The two tensors with their positions in a dimension of its own, and which that is."""
    for dim in range(a.dim()):
        if a.shape[dim] == t and b.shape[dim] == wide:
            yield a, b, dim
        elif n > 1 and a.shape[dim] == n * t and b.shape[dim] == n * wide:
            yield unfolded(a, dim, n, t), unfolded(b, dim, n, wide), dim + 1
            yield unfolded(a, dim, t, n), unfolded(b, dim, wide, n), dim


def unfolded(a: Tensor, dim: int, *sizes: int) -> Tensor:
    """A tensor with one dimension split into several."""
    return a.reshape(*a.shape[:dim], *sizes, *a.shape[dim + 1 :])


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of one number; infinite where only one side is NaN, or they are different infinities."""
    if not a.numel():
        return 0.0
    a, b = a.detach(), b.detach()
    if not (a.is_floating_point() or a.is_complex()):
        return 0.0 if torch.equal(a, b) else float("inf")
    wide = torch.float64 if a.dtype == torch.float64 else torch.float32
    a, b = (a.abs(), b.abs()) if a.is_complex() else (a.to(wide), b.to(wide))
    same = (a == b) | (a.isnan() & b.isnan())
    return float((a - b).abs().masked_fill(same, 0.0).nan_to_num(float("inf"), float("inf")).max())


def size(a: Tensor) -> float:
    """The largest finite number, without its sign."""
    values = a.detach()
    # torch has no absolute value of booleans, as masks are
    values = (values.to(torch.float64) if values.dtype == torch.bool else values).abs()
    values = values[values.isfinite()] if values.is_floating_point() else values
    return float(values.max()) if values.numel() else 0.0
