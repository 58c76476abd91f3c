"""What stands in for a batch norm: its affine map alone, or its formula with statistics that never move."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelAffine(nn.Module):
    """y = weight · x + bias per channel, which is dimension 1: a batch norm in eval mode without its statistics.

    `weight` and `bias` are parameters of shape (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """The map; x is (N, C, ...)."""
        shape = (1, -1, *(1,) * (x.dim() - 2))
        return torch.addcmul(self.bias.view(shape), self.weight.view(shape), x)

    def extra_repr(self) -> str:
        """The number of channels."""
        return str(len(self.weight))


class FrozenNorm(nn.Module):
    """A batch norm that uses its stored statistics in train mode, too, and never updates them.

    `running_mean` and `running_var` are buffers, `weight` and `bias` parameters (or None) that can still learn.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("running_mean", running_mean)
        self.register_buffer("running_var", running_var)
        self.weight = None if weight is None else nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """The map; x is (N, C, ...)."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def extra_repr(self) -> str:
        """The number of channels, and eps."""
        return f"{len(self.running_mean)}, eps={self.eps:g}"
