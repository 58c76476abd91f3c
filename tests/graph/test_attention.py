"""How sharp attention is, against float64: every query of every head, one after another."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graph.watched import neighbours_of

C, HEADS, N, T = 12, 3, 4, 11


class Layer(nn.Module):
    """x + attention(norm(x)), with the attention given."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.qkv, self.out, self.attend = (
            nn.LayerNorm(C),
            nn.Linear(C, 3 * C),
            nn.Linear(C, C),
            attend,
        )

    def heads(self, x: Tensor) -> list[Tensor]:
        parts = self.qkv(3 * self.norm(x)).chunk(3, -1)
        return [part.view(N, T, HEADS, -1).transpose(1, 2) for part in parts]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(self.attend(*self.heads(x)).transpose(1, 2).reshape(N, T, C))


SEEN = torch.ones(T, T, dtype=torch.bool).tril()
SEEN_BY = {
    "all": torch.ones(T, T, dtype=torch.bool),
    "causal": SEEN,
    "mask": SEEN.clone().fill_diagonal_(True),
    "added": SEEN,
    "written out": SEEN,
}


def attend(kind: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention in one of its spellings, times 2 over the usual."""
    scale = 2 / math.sqrt(C // HEADS)
    added = torch.zeros(T, T).masked_fill(~SEEN, torch.finfo(torch.float32).min)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if kind == "written out":
            return torch.softmax(q @ k.transpose(-1, -2) * scale + added, -1) @ v
        masks = {"mask": SEEN, "added": added}
        return F.scaled_dot_product_attention(
            q, k, v, masks.get(kind), is_causal=kind == "causal", scale=scale
        )

    return call


def slow(model: Layer, x: Tensor, seen: Tensor) -> tuple[float, float]:
    """The largest logit and the mean entropy over log of the number of keys, for queries with 8 keys and more."""
    with torch.no_grad():
        q, k, _ = (part.double().numpy() for part in model.heads(x))
    largest, even = 0.0, []
    for n in range(N):
        for h in range(HEADS):
            for t in range(T):
                keys = np.flatnonzero(seen[t].numpy())
                logits = np.array([q[n, h, t] @ k[n, h, s] for s in keys]) * 2 / math.sqrt(C // HEADS)
                largest = max(largest, float(np.abs(logits).max()))
                shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
                if len(keys) >= 8:
                    even.append(-float((shares * np.log(shares)).sum()) / math.log(len(keys)))
    return largest, float(np.mean(even))


@pytest.mark.parametrize("mode", ["inference", "no_grad", "grad"])
@pytest.mark.parametrize("kind", list(SEEN_BY))
def test_logits_and_entropy(kind, mode):
    """Fails if keys that a mask hides count, the scale is the usual one, or the entropy is not relative to its largest."""
    model, x = Layer(attend(kind)).eval(), torch.randn((N, T, C), generator=torch.Generator().manual_seed(2))
    largest, even = slow(model, x, SEEN_BY[kind])
    with torch.inference_mode(mode == "inference"):
        found = neighbours_of(model, x, grad=mode == "grad")["norm"]
    assert found.largest_logit == pytest.approx(largest, rel=1e-4)
    assert found.attention_evenness == pytest.approx(even, rel=1e-4)
    if not math.isnan(found.attention_factor):
        assert found.attention_factor == pytest.approx(2.0)
    elif kind != "written out":
        assert mode == "no_grad"


def test_heads_that_share_keys():
    """Fails if queries meet the keys of another group."""

    def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], enable_gqa=True)

    def repeated(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (part[:, :1].expand(N, HEADS, T, -1) for part in (k, v))
        return F.scaled_dot_product_attention(q, k, v)

    x = torch.randn((N, T, C), generator=torch.Generator().manual_seed(2))
    one, other = (neighbours_of(Layer(attention).eval(), x)["norm"] for attention in (grouped, repeated))
    assert one.largest_logit == pytest.approx(other.largest_logit, rel=1e-5)
    assert one.attention_evenness == pytest.approx(other.attention_evenness, rel=1e-5)
