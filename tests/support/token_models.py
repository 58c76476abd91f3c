"""Small transformers of tokens: causal as they are, and with what lets the future in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_TOKENS, LONGEST = 30, 24


class Attention(nn.Module):
    """Four heads, with a causal mask or without, and with a mask of padding where one is given."""

    def __init__(self, c: int, causal: bool) -> None:
        super().__init__()
        self.qkv, self.out, self.looks_back = nn.Linear(c, 3 * c), nn.Linear(c, c), causal

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        n, t, c = x.shape
        q, k, v = (y.view(n, t, 4, c // 4).transpose(1, 2) for y in self.qkv(x).chunk(3, -1))
        seen = (
            torch.ones(t, t, dtype=torch.bool).tril()
            if self.looks_back
            else torch.ones(t, t, dtype=torch.bool)
        )
        if keep is not None:
            seen = (seen & keep[:, None, None, :].bool()) | torch.eye(t, dtype=torch.bool)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(y.transpose(1, 2).reshape(n, t, c))


class NormOverTime(nn.Module):
    """The mistake: mean and variance over positions."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, 1, keepdim=True)
        return self.weight * (x - mean) / (var + 1e-5).sqrt() + self.bias


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, c: int, norm: type[nn.Module], causal: bool) -> None:
        super().__init__()
        self.ln1, self.attn, self.ln2 = norm(c), Attention(c, causal), nn.LayerNorm(c)
        self.mlp = nn.Sequential(nn.Linear(c, 2 * c), nn.GELU(), nn.Linear(2 * c, c))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln1(x), keep)
        return x + self.mlp(self.ln2(x))


class Gpt(nn.Module):
    """Tokens in, scores of the next token out; `norm_over_time` and `sees_all` are blocks with a mistake."""

    def __init__(self, norm_over_time: int | None = None, sees_all: int | None = None, n: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        c = 16
        self.tokens, self.positions = nn.Embedding(N_TOKENS, c), nn.Embedding(LONGEST, c)
        self.blocks = nn.ModuleList(
            Block(c, NormOverTime if i == norm_over_time else nn.LayerNorm, i != sees_all) for i in range(n)
        )
        self.ln_f, self.head = nn.LayerNorm(c), nn.Linear(c, N_TOKENS)

    def embedded(self, ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        places = torch.arange(ids.shape[1]) if position_ids is None else position_ids
        return self.tokens(ids) + self.positions(places)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedded(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


class MaskedGpt(Gpt):
    """The same with a mask of padding, and positions where they are given."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        x = self.embedded(input_ids, position_ids)
        for block in self.blocks:
            x = block(x, attention_mask)
        return {"logits": self.head(self.ln_f(x))}


def tokens(n: int = 4, t: int = LONGEST, seed: int = 0) -> Tensor:
    return torch.randint(N_TOKENS, (n, t), generator=torch.Generator().manual_seed(seed))
