"""What logits of a live network cannot exceed, against singular values of whole matrices and the logits themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graph.watched import Counting, neighbours_of

N, T, C, H, D = 2, 5, 24, 6, 4

Parts = tuple[Tensor, Tensor, Tensor]


def rotated(x: Tensor) -> Tensor:
    """Turned by an angle that grows with the position, which leaves its length as it is."""
    angle = torch.arange(x.shape[-2])[:, None] * torch.ones(1)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Attention(nn.Module):
    """Pre-norm attention of H heads of queries and K of keys; `cut` makes queries, keys and values, (N, heads, T, D)."""

    def __init__(
        self, cut: Callable[[Any, Tensor], Parts], k: int, norm: nn.Module, scale: float | None
    ) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.cut, self.scale, self.norm = cut, scale, norm
        self.q, self.k, self.v = (nn.Linear(C, n * D) for n in (H, k, k))
        self.all, self.o = nn.Linear(C, (H + 2 * k) * D, bias=False), nn.Linear(C, C)
        self.qn, self.kn = nn.RMSNorm(D), nn.RMSNorm(D)
        for one in (self.norm, self.qn, self.kn):
            for vector in one.parameters():
                nn.init.normal_(vector, 1.0, 0.5)
        self.largest = 0.0

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.cut(self, self.norm(x))
        size = 1 / math.sqrt(D) if self.scale is None else self.scale
        whole = k.repeat_interleave(H // k.shape[1], 1)
        self.largest = max(self.largest, float((q @ whole.transpose(-1, -2) * size).detach().abs().max()))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale, enable_gqa=True)
        return x + self.o(y.transpose(1, 2).reshape(N, T, C))


@cache
def shares_heads() -> bool:
    """Whether this torch computes attention whose queries share keys as one operation: of torch 2.6 products are left."""
    with Counting() as seen:
        F.scaled_dot_product_attention(torch.ones(1, 2, 3, D), *[torch.ones(1, 1, 3, D)] * 2, enable_gqa=True)
    return any("scaled_dot_product" in name for name in seen.names)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, D)).transpose(1, 2)


def apart(model: Any, y: Tensor) -> Parts:
    return rotated(heads(model.q(y))), rotated(heads(model.k(y))), heads(model.v(y))


def scaled_before(model: Any, y: Tensor) -> Parts:
    """As in Whisper: queries are multiplied, and attention then multiplies by 1."""
    return heads(model.q(y) * 3.0), heads(model.k(y)), heads(model.v(y))


def one_after_another(model: Any, y: Tensor) -> Parts:
    k = model.k.out_features // D
    q, key, v = model.all(y).split([H * D, k * D, k * D], -1)
    return heads(q), heads(key), heads(v)


def by_group(model: Any, y: Tensor) -> Parts:
    """As in GPT-NeoX and InternLM."""
    k = model.k.out_features // D
    parts = model.all(y).unflatten(-1, (k, H // k + 2, D))
    return (
        heads(parts[..., :-2, :].flatten(2)),
        heads(parts[..., -2, :].flatten(2)),
        heads(parts[..., -1, :].flatten(2)),
    )


def shuffled(model: Any, y: Tensor) -> Parts:
    """Keys first, in a matrix of all three: an order that is not known."""
    k = model.k.out_features // D
    key, q, v = model.all(y).split([k * D, H * D, k * D], -1)
    return heads(q), heads(key), heads(v)


def normed(model: Any, y: Tensor) -> Parts:
    q, k, v = apart(model, y)
    return model.qn(q), model.kn(k), v


def rows(model: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights (heads, D, C) of queries and keys, and their biases, from the definition of each cut."""
    k = model.k.out_features // D
    if model.cut in (apart, scaled_before):
        of = model.q.weight, model.k.weight, model.q.bias, model.k.bias
        return of[0].view(H, D, C), of[1].view(k, D, C), of[2].view(H, D), of[3].view(k, D)
    w = model.all.weight
    if model.cut is one_after_another:
        q, key = w[: H * D].view(H, D, C), w[H * D : (H + k) * D].view(k, D, C)
    else:
        parts = w.view(k, H // k + 2, D, C)
        q, key = parts[:, :-2].reshape(H, D, C), parts[:, -2]
    return q, key, torch.zeros(H, D), torch.zeros(k, D)


def by_hand(model: Any, factor: float) -> float:
    """The largest singular value of a head's whole matrix, with a column for what does not depend on the token."""
    gamma, beta = model.norm.weight.double(), model.norm.bias
    q, key, qb, kb = (part.detach().double() for part in rows(model))
    if beta is not None:
        qb, kb = qb + q @ beta.double(), kb + key @ beta.double()
    q, key = (torch.cat([w * gamma, b[..., None]], -1) for w, b in ((q, qb), (key, kb)))
    biased = beta is not None or model.cut in (apart, scaled_before)
    each = [np.linalg.norm((q[h].T @ key[h * len(key) // H]).detach().numpy(), 2) for h in range(H)]
    return float(max(each)) * (C + biased) * factor


@pytest.mark.parametrize("k", [H, 3, 1])
@pytest.mark.parametrize(
    ("cut", "norm", "scale", "factor"),
    [
        (apart, nn.LayerNorm, None, 1 / math.sqrt(D)),
        (apart, nn.RMSNorm, 0.25, 0.25),
        (scaled_before, nn.LayerNorm, 1.0, 3.0),
        (one_after_another, nn.RMSNorm, None, 1 / math.sqrt(D)),
        (one_after_another, nn.LayerNorm, None, 1 / math.sqrt(D)),
        (by_group, nn.RMSNorm, None, 1 / math.sqrt(D)),
    ],
)
@pytest.mark.parametrize("grad", [False, True])
def test_the_bound_is_that_of_whole_matrices(
    cut: Any, norm: Any, scale: float | None, factor: float, k: int, grad: bool
) -> None:
    """Fails if rows are cut into other heads, or γ, β, biases or what multiplies queries are left out."""
    if k != H and not shares_heads():
        pytest.skip("attention with shared keys is no operation of this torch")
    norm = norm(C) if norm is nn.LayerNorm else norm(C, eps=1e-6)
    if norm.__class__ is nn.RMSNorm:
        norm.bias = None
    model = Attention(cut, k, norm, scale)
    found = neighbours_of(model, torch.randn(N, T, C), grad=grad)["norm"].qk_bound
    assert found == pytest.approx(by_hand(model, factor), rel=1e-5)
    assert 0 < model.largest < found


def test_norms_of_queries_and_keys_bound_them() -> None:
    """Fails if weights are asked where norms follow them."""
    model = Attention(normed, 3 if shares_heads() else H, nn.RMSNorm(C), None)
    found = neighbours_of(model, torch.randn(N, T, C))
    product = (model.qn.weight * model.kn.weight).detach().abs().max()
    assert found["qn"].qk_bound == pytest.approx(float(product) * math.sqrt(D))
    assert model.largest < found["qn"].qk_bound
    assert math.isnan(found["norm"].qk_bound)
    assert math.isnan(found["kn"].qk_bound)


def test_an_order_of_rows_that_is_not_known_has_no_bound() -> None:
    """Fails if rows are taken for queries and keys without a look at what they make."""
    model = Attention(shuffled, 3, nn.RMSNorm(C), None)
    assert math.isnan(neighbours_of(model, torch.randn(N, T, C))["norm"].qk_bound)
