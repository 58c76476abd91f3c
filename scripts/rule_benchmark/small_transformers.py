"""A small diffusion transformer with the zeros of its recipe: modulations and the last weights begin at 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_HEADS, N_BLOCKS, N_STEPS = 4, 4, 1000


def _zeros(layer: nn.Linear) -> nn.Linear:
    """The layer with weights and bias of 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Modulated(nn.Module):
    """Attention and MLP whose scale, shift and gate are made from the step of diffusion. arXiv:2212.09748."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = _zeros(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        scale, shift, gate, scale_of_mlp, shift_of_mlp, gate_of_mlp = self.modulation(step).chunk(6, -1)
        q, k, v = (
            part.unflatten(2, (N_HEADS, -1)).transpose(1, 2)
            for part in self.qkv(self.norm1(x) * (1 + scale) + shift).chunk(3, -1)
        )
        x = x + gate * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate_of_mlp * self.mlp(self.norm2(x) * (1 + scale_of_mlp) + shift_of_mlp)


class DiffusionTransformer(nn.Module):
    """Blocks of one stream; each sample of a batch is at another step of diffusion."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.of_step = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Modulated(width) for _ in range(N_BLOCKS))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation, self.out = _zeros(nn.Linear(width, 2 * width)), _zeros(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, width = len(x), x.shape[2]
        steps = torch.linspace(0, N_STEPS, n)[:, None] * 10_000 ** -torch.linspace(0, 1, width // 2)
        step = self.of_step(torch.cat([steps.cos(), steps.sin()], 1))[:, None]
        for block in self.blocks:
            x = block(x, step)
        scale, shift = self.modulation(step).chunk(2, -1)
        y: Tensor = self.out(self.norm(x) * (1 + scale) + shift)
        return y
