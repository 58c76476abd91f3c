"""Small stacks of attention, built as they should be or not, as recordings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.recording import Recording

C = 16


class Block(nn.Module):
    """Attention and MLP, pre-norm; `adds` says whether what went in is added to what comes out."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.adds = adds
        self.first, self.second = nn.LayerNorm(C), nn.LayerNorm(C)
        self.qkv, self.out, self.mlp = nn.Linear(C, 3 * C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, -1)).transpose(1, 2) for part in self.qkv(self.first(x)).chunk(3, 2))
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + y if self.adds else y
        y = self.mlp(self.second(x)).relu()
        return x + y if self.adds else y


class Stack(nn.Module):
    """Blocks, a norm, another one where it is `twice`, and a head."""

    def __init__(self, n: int = 2, adds: bool = True, twice: bool = False) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(adds) for _ in range(n)))
        self.norm, self.head = nn.LayerNorm(C), nn.Linear(C, 7)
        self.again = nn.LayerNorm(C) if twice else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.again(self.norm(self.blocks(x))))
        return y


def recorded(n: int = 2, adds: bool = True, twice: bool = False) -> Recording:
    """What a probe sees of a stack."""
    torch.manual_seed(0)
    model = Stack(n, adds, twice).eval()
    with torch.no_grad(), bnprobe.attach(model) as probe:
        model(torch.randn((6, 12, C)))
    return probe.recording
