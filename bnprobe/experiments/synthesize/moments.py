"""Mean and variance of every channel, with a gradient that is one pass over the values."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divisor n) over samples and positions of rows (N, C, P), each of shape (C,). Differentiable."""
    return cast("tuple[Tensor, Tensor]", _Moments.apply(rows))


class _Moments(torch.autograd.Function):
    """The gradient at a value is a line in it, one for each channel. Formula by formula, autograd takes seven passes and as
    many copies of the rows: a third of the time of a step of a ResNet-20."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        mean = rows.mean(2).mean(0)  # positions first: torch reduces inner dimensions faster than outer ones
        var = (rows - mean[:, None]).square_().mean(2).mean(0)
        ctx.save_for_backward(rows, mean)
        return mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_mean: Tensor, to_var: Tensor) -> Tensor:
        rows, mean = ctx.saved_tensors
        n = rows.shape[0] * rows.shape[2]
        slope = 2 * to_var / n
        return torch.addcmul((to_mean / n - slope * mean)[:, None], rows, slope[:, None])
