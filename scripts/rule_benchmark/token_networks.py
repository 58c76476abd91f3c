"""Small transformers that are trained on text in under a minute each, as they should be and with the mistakes people make.

The text is the language reference that comes with Python, letter by letter: 64 channels, 4 blocks, next-letter prediction.
A recipe names a network, a mistake or none, and a seed; what was trained is kept, so that rules can be changed and judged
again at once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_CHANNELS, N_HEADS, N_BLOCKS, LENGTH = 64, 4, 4, 64
N_STEPS, BATCH, RATE, WARM_UP, CLIP = 500, 16, 1e-3, 50, 1.0
HELD_OUT = 40_000
"""Letters at the end of the text that no network is trained on."""


AFTER_TRAINING = ("offset",)
"""Fields of a recipe that change its network after training."""


@dataclass(frozen=True)
class Recipe:
    """How a network is made and trained. The defaults are those of a healthy pre-norm network."""

    norm: str = "layer"
    qk_norm: bool = False
    after_branch: bool = False
    """A norm at the end of each branch, beside the one at its beginning."""
    twice: bool = False
    """A second norm directly after the final one."""
    of_sequence: bool = False
    """The first norm divides by one scale of the whole sequence, later tokens included."""
    post_norm: bool = False
    final_norm: bool = True
    over_time: bool = False
    """The first norm takes its statistics over positions, later ones included."""
    eps: float = 1e-5
    attention_scale: float = 1.0
    sees_all: bool = False
    """Attention gets the mask of padding in place of the causal one."""
    softmax_over: str = "keys"
    residual: bool = True
    stuck: bool = False
    """MLPs end in a gate and weights that both begin at 0, so that no gradient gets past either."""
    branch_scale: float = 1.0
    rate: float = RATE
    warm_up: bool = True
    clip: bool = True
    dtype: str = "float32"
    gain_decay: float = 0.0
    n_steps: int = N_STEPS
    offset: float = 0.0
    """One vector that is added to every token after training, in lengths of a token."""

    @property
    def trained_as(self) -> str:
        """What differs from the defaults while it is trained."""
        found = [
            f"{one.name}={getattr(self, one.name)}"
            for one in fields(self)
            if getattr(self, one.name) != one.default and one.name not in AFTER_TRAINING
        ]
        return ",".join(found) or "healthy"


class OverTime(nn.Module):
    """Layer norm with its mean and variance over positions instead of channels."""

    def __init__(self, n_channels: int, eps: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(n_channels)), nn.Parameter(torch.zeros(n_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
        return (x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias


class OfSequence(nn.RMSNorm):
    """RMS norm with one scale for all tokens of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.eps is not None
        return x / torch.sqrt(x.square().mean((1, 2), keepdim=True) + self.eps) * self.weight


def norm_of(recipe: Recipe, n_channels: int = N_CHANNELS) -> nn.Module:
    """The norm of a recipe."""
    kind = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[recipe.norm]
    return kind(n_channels, eps=recipe.eps)


class Attention(nn.Module):
    """Causal attention of several heads."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.qkv, self.out = nn.Linear(N_CHANNELS, 3 * N_CHANNELS), nn.Linear(N_CHANNELS, N_CHANNELS)
        d = N_CHANNELS // N_HEADS
        self.scale = recipe.attention_scale / math.sqrt(d)
        self.q_norm, self.k_norm = (
            (norm_of(recipe, d) if recipe.qk_norm else nn.Identity()) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (part.view(n, t, N_HEADS, -1).transpose(1, 2) for part in self.qkv(x).split(c, 2))
        q, k = self.q_norm(q), self.k_norm(k)
        return self.out(self._mixed(q, k, v).transpose(1, 2).reshape(n, t, c))

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.recipe.softmax_over == "keys":
            causal = not self.recipe.sees_all
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=self.scale)
        later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        logits = (q @ k.transpose(-1, -2) * self.scale).masked_fill(later, -torch.inf)
        return logits.softmax(-2) @ v


def _first_norm(recipe: Recipe) -> nn.Module:
    """The first norm of the network, which some recipes get wrong."""
    if recipe.over_time:
        return OverTime(N_CHANNELS, recipe.eps)
    return OfSequence(N_CHANNELS, recipe.eps) if recipe.of_sequence else norm_of(recipe)


class Block(nn.Module):
    """Attention and MLP, each added to the stream."""

    def __init__(self, recipe: Recipe, first: bool) -> None:
        super().__init__()
        self.recipe = recipe
        self.norm1 = _first_norm(recipe) if first else norm_of(recipe)
        self.norm2 = norm_of(recipe)
        self.attention = Attention(recipe)
        self.mlp = nn.Sequential(
            nn.Linear(N_CHANNELS, 4 * N_CHANNELS), nn.GELU(), nn.Linear(4 * N_CHANNELS, N_CHANNELS)
        )
        self.after1, self.after2 = (
            (norm_of(recipe) if recipe.after_branch else nn.Identity()) for _ in range(2)
        )
        self.gate: nn.Parameter | float = 1.0
        if recipe.stuck:
            self.gate = nn.Parameter(torch.zeros(N_CHANNELS))
            for parameter in self.mlp[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.recipe.branch_scale
        if self.recipe.post_norm:
            x = self.norm1(x + scale * self.attention(x))
            return self.norm2(x + scale * self.mlp(x))
        if not self.recipe.residual:
            return self.mlp(self.norm2(self.attention(self.norm1(x))))
        x = x + scale * self.after1(self.attention(self.norm1(x)))
        return x + scale * self.gate * self.after2(self.mlp(self.norm2(x)))


class LetterModel(nn.Module):
    """Predicts the next letter at every position."""

    def __init__(self, recipe: Recipe, n_letters: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(n_letters, N_CHANNELS), nn.Embedding(LENGTH, N_CHANNELS)
        self.blocks = nn.ModuleList(Block(recipe, i == 0) for i in range(N_BLOCKS))
        with_norm = recipe.final_norm and not recipe.post_norm
        self.norm = norm_of(recipe) if with_norm else nn.Identity()
        self.again = norm_of(recipe) if recipe.twice else nn.Identity()
        self.head = nn.Linear(N_CHANNELS, n_letters, bias=False)
        for embedding in (self.letters, self.places):
            nn.init.normal_(embedding.weight, std=0.02 if not recipe.post_norm else 1.0)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.letters(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.again(self.norm(x)))


@cache
def text() -> tuple[Tensor, int]:
    """The letters of the language reference as numbers, and how many different ones there are."""
    whole = "\n".join(topics[name] for name in sorted(topics))
    known = sorted({letter for letter in whole if letter.isascii()})
    place = {letter: i for i, letter in enumerate(known)}
    return torch.tensor([place[letter] for letter in whole if letter in place]), len(known)


def sequences(n: int) -> Tensor:
    """Held-out text, shape (n, LENGTH)."""
    ids, _ = text()
    return ids[-HELD_OUT:][: n * LENGTH].reshape(n, LENGTH)


def build(recipe: Recipe, seed: int) -> LetterModel:
    """The network of a recipe before training."""
    torch.manual_seed(seed)
    return LetterModel(recipe, text()[1]).to(getattr(torch, recipe.dtype))


def trained(recipe: Recipe, seed: int, folder: Path) -> tuple[LetterModel, float]:
    """The network after training, and its loss on held-out text; from the folder where it was trained before."""
    model = build(recipe, seed)
    digest = hashlib.sha256(f"{recipe.trained_as} {seed}".encode()).hexdigest()[:12]
    path = folder / f"tokens-{digest}.pt"
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        _train(model, recipe, seed)
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    model.eval()
    with torch.no_grad():
        _change(model, recipe)
        return model, float(loss(model, sequences(16)))


def _change(model: LetterModel, recipe: Recipe) -> None:
    """What a recipe does to its network after training."""
    letters = model.letters.weight
    length = letters.norm(dim=1).mean()
    direction = torch.randn(N_CHANNELS, generator=torch.Generator().manual_seed(0))
    letters.add_(direction / direction.norm() * length * recipe.offset)


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Cross entropy of the next letter, in nats."""
    scores = model(ids[:, :-1]).float()
    return F.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())


def _train(model: nn.Module, recipe: Recipe, seed: int) -> None:
    torch.manual_seed(seed)
    ids = text()[0][:-HELD_OUT]
    gains = [p for name, p in model.named_parameters() if "norm" in name and p.dim() == 1]
    others = [p for p in model.parameters() if all(p is not gain for gain in gains)]
    groups = [
        {"params": gains, "weight_decay": recipe.gain_decay},
        {"params": others, "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, recipe.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _course(recipe))
    for _ in range(recipe.n_steps):
        starts = torch.randint(len(ids) - LENGTH, (BATCH,))
        batch = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        optimizer.zero_grad()
        loss(model, batch).backward()
        if recipe.clip:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()


def _course(recipe: Recipe) -> Callable[[int], float]:
    """The learning rate over steps, relative to its largest: up over the warm-up, then down along a cosine."""

    def at(step: int) -> float:
        up = min((step + 1) / WARM_UP, 1.0) if recipe.warm_up else 1.0
        return up * (0.55 + 0.45 * math.cos(math.pi * step / recipe.n_steps))

    return at
