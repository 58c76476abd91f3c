"""Small diffusion models that keep what their norms meet, sample by sample, as their own code computes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

C, G, EPS = 12, 3, 1e-3
"""Channels, groups, and a large eps, so that it shows where it is forgotten."""


class Met(NamedTuple):
    """A norm of one pass, called with timesteps `t` (N,): its input, and scale, shift and gate (N, C) where it has them."""

    norm: str
    t: Tensor
    x: Tensor
    parts: dict[str, Tensor]


def embedded(t: Tensor, width: int = 8) -> Tensor:
    """Sines and cosines of timesteps (N,)."""
    waves = t[:, None] / 10 * torch.exp(-torch.arange(width // 2).to(t) / 3)
    return torch.cat([waves.sin(), waves.cos()], -1)


Way = Callable[[Tensor], tuple[Tensor, ...]]
"""How a block takes six parts of what one layer made, each (N, C)."""

WAYS: dict[str, Way] = {
    "chunk": lambda made: made.chunk(6, -1),
    "split": lambda made: made.split(C, -1),
    "unbind": lambda made: made.unflatten(-1, (6, C)).unbind(1),
    "slices": lambda made: tuple(made[:, i * C : (i + 1) * C] for i in range(6)),
    "selected": lambda made: tuple(made.reshape(-1, 6, C)[:, i] for i in range(6)),
    "strided": lambda made: tuple(made[:, i::6] for i in range(6)),
    "cast": lambda made: tuple(part.float().to(made.dtype) + 0.0 for part in made.chunk(6, -1)),
}


class Block(nn.Module):
    """A block of DiT: norms without parameters, scaled by 1 + scale and shifted, and branches with gates."""

    def __init__(self, name: str, way: str, fused: bool, met: list[Met]) -> None:
        super().__init__()
        self.name, self.way, self.fused, self.met = name, WAYS[way], fused, met
        self.norm1, self.norm2 = (nn.LayerNorm(C, EPS, elementwise_affine=False) for _ in range(2))
        self.qkv, self.o = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.mlp = nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(8, 6 * C))

    def forward(self, x: Tensor, c: Tensor, t: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.way(self.modulation(c))
        self._keep("norm1", t, x, scale, shift, gate)
        q, k, v = self.qkv(self._modulated(self.norm1(x), scale, shift)).chunk(3, -1)
        x = x + gate[:, None] * self.o((q @ k.mT / math.sqrt(C)).softmax(-1) @ v)
        self._keep("norm2", t, x, scale2, shift2, gate2)
        return x + gate2.unsqueeze(1) * self.mlp(self._modulated(self.norm2(x), scale2, shift2))

    def _modulated(self, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        if self.fused:
            return torch.addcmul(shift[:, None], y, scale[:, None] + 1)
        return y * (1 + scale[:, None]) + shift[:, None]

    def _keep(self, norm: str, t: Tensor, x: Tensor, scale: Tensor, shift: Tensor, gate: Tensor) -> None:
        rows = [part.detach().clone().expand(len(x), C) for part in (1 + scale, shift, gate)]
        kept = dict(zip(("scale", "shift", "gate"), rows, strict=True))
        self.met.append(Met(f"{self.name}.{norm}", t, x.detach().clone(), kept))


class DiT(nn.Module):
    """Two blocks; with `once` the modulation is made once for all samples of a pass."""

    def __init__(
        self, way: str = "chunk", fused: bool = False, checkpointed: bool = False, once: bool = False
    ) -> None:
        super().__init__()
        self.met: list[Met] = []
        self.checkpointed, self.once = checkpointed, once
        self.embed, self.out = nn.Linear(5, C), nn.Linear(C, 5)
        self.blocks = nn.ModuleList(Block(f"blocks.{i}", way, fused, self.met) for i in range(2))

    def forward(self, x: Tensor, t: Any) -> Tensor:
        every = torch.as_tensor(t, dtype=x.dtype).reshape(-1).expand(len(x))
        c = embedded(every[:1] if self.once else every)
        x = self.embed(x)
        for block in self.blocks:
            x = (
                checkpoint(block, x, c, every, use_reentrant=False)
                if self.checkpointed
                else block(x, c, every)
            )
        y: Tensor = self.out(x)
        return y


class UNet(nn.Module):
    """A UNet of depth one, by noise level: group norms of which those in the middle are scaled and shifted."""

    def __init__(self, scaled: bool = True) -> None:
        super().__init__()
        self.met: list[Met] = []
        self.scaled = scaled
        self.enter, self.leave = nn.Conv2d(2, C, 3, padding=1), nn.Conv2d(C, 2, 3, padding=1)
        self.middle = nn.Conv2d(C, C, 3, padding=1)
        self.norm1, self.norm2 = (nn.GroupNorm(G, C, EPS) for _ in range(2))
        self.by_level = nn.Linear(8, 2 * C)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        scale, shift = self.by_level(embedded(sigma.log() * 20)).chunk(2, -1)
        x = self.enter(x)
        self.met.append(Met("norm1", sigma, x.detach().clone(), {}))
        h = self.middle(F.silu(self.norm1(x)))
        parts = {"scale": 1 + scale.detach(), "shift": shift.detach()} if self.scaled else {}
        self.met.append(Met("norm2", sigma, h.detach().clone(), parts))
        y = self.norm2(h)
        y = y * (1 + scale[:, :, None, None]) + shift[:, :, None, None] if self.scaled else y
        return self.leave(x + F.silu(y))
