"""What norms are for: networks whose wiring is written here, and those of other people, by what their authors call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graph.watched import neighbours_of

C, N, T = 16, 3, 7


def roles(model: nn.Module, *args: Any, grad: bool = False, **kwargs: Any) -> dict[str, str]:
    """By site, after one pass."""
    return {
        site: found.role for site, found in neighbours_of(model.eval(), *args, grad=grad, **kwargs).items()
    }


def tokens() -> Tensor:
    return torch.randn((N, T, C), generator=torch.Generator().manual_seed(0))


def whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def in_steps(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / 2.0 + torch.zeros(T, T)
    return torch.softmax(torch.tanh(scores / 30) * 30, -1) @ v


def by_baddbmm(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, h, t, d = q.shape
    q, k, v = (part.reshape(n * h, t, d) for part in (q, k, v))
    scores = torch.baddbmm(torch.zeros(n * h, t, t), q, k.transpose(1, 2))
    return (F.softmax(scores, -1) @ v).view(n, h, t, d)


def with_a_sink(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As in gpt-oss: one more column, of the logit of no key, which is dropped after the softmax."""
    scores = torch.cat([q @ k.transpose(-1, -2) / 2.0, torch.zeros(*q.shape[:3], 1)], -1)
    return (scores - scores.max(-1, keepdim=True).values).softmax(-1)[..., :-1] @ v


class Rotary(nn.Module):
    """Sums of rotated halves, which are no sums of the stream."""

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2])[:, None] * torch.ones(x.shape[-1])
        half = x.shape[-1] // 2
        return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


class Block(nn.Module):
    """Pre-norm attention and gated MLP, with norms of queries and keys and after branches."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend, self.rotary = attend, Rotary()
        self.before, self.after, self.qn, self.kn = (
            nn.RMSNorm(C),
            nn.RMSNorm(C),
            nn.RMSNorm(C // 4),
            nn.RMSNorm(C // 4),
        )
        self.before_mlp, self.after_mlp, self.within = nn.RMSNorm(C), nn.RMSNorm(C), nn.RMSNorm(2 * C)
        self.q, self.k, self.v, self.o = (nn.Linear(C, C) for _ in range(4))
        self.up, self.gate, self.down = nn.Linear(C, 2 * C), nn.Linear(C, 2 * C), nn.Linear(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (part(y).view(N, T, 4, -1).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, k = self.rotary(self.qn(q)), self.rotary(self.kn(k))
        x = x + self.after(self.o(self.attend(q, k, v).transpose(1, 2).reshape(N, T, C)))
        y = self.before_mlp(x)
        return x + self.after_mlp(self.down(self.within(F.silu(self.gate(y)) * self.up(y))))


@pytest.mark.parametrize("attend", [whole, in_steps, by_baddbmm, with_a_sink])
@pytest.mark.parametrize("grad", [False, True])
def test_every_role_of_a_block(attend, grad):
    """Fails if rotary sums end the walk, if scores that are computed in steps are no attention, or sides are exchanged."""
    model = nn.Sequential(Block(attend), Block(attend), nn.RMSNorm(C), nn.Linear(C, 5))
    of_block = {
        "before": "attention",
        "qn": "query",
        "kn": "key",
        "after": "attention output",
        "before_mlp": "MLP",
        "within": "inner",
        "after_mlp": "MLP output",
    }
    expected = {f"{i}.{name}": role for i in (0, 1) for name, role in of_block.items()} | {"2": "final"}
    assert roles(model, tokens(), grad=grad) == expected


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("first", [False, True], ids=["post-norm", "pre-norm"])
def test_encoder_and_decoder_of_torch(first):
    """Fails if cross-attention is attention, or the encoder's last norm is the end of the network."""
    model = nn.Transformer(C, 4, 2, 1, 2 * C, batch_first=True, norm_first=first)
    found = roles(model, tokens(), tokens())
    expected = (
        ("attention", "MLP", "attention", "cross-attention", "MLP")
        if first
        else ("attention output", "MLP output", "attention output", "cross-attention output", "MLP output")
    )
    names = (
        "encoder.layers.1.norm1",
        "encoder.layers.1.norm2",
        *tuple(f"decoder.layers.0.norm{i}" for i in (1, 2, 3)),
    )
    assert tuple(found[name] for name in names) == expected
    assert (found["encoder.norm"], found["decoder.norm"]) == ("encoder end", "final")


def test_families_of_transformers():
    """Fails if a role is read off a name: these call the same norms by other ones."""
    transformers = pytest.importorskip("transformers")
    ids = torch.randint(3, 50, (2, 9))
    common = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=50, **common))
    assert roles(bert, ids) == {
        "embeddings.LayerNorm": "embedding",
        "encoder.layer.0.attention.output.LayerNorm": "attention output",
        "encoder.layer.0.output.LayerNorm": "final",
    }
    neox = transformers.GPTNeoXModel(
        transformers.GPTNeoXConfig(vocab_size=50, use_parallel_residual=True, **common)
    )
    assert list(roles(neox, ids).values()) == ["attention", "MLP", "final"]
    mamba = transformers.MambaModel(
        transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    assert roles(mamba, ids) == {"layers.0.norm": "mixer", "norm_f": "final"}


class AdaLN(nn.Module):
    """A block of a diffusion transformer: scales, shifts and gates are parts of what one layer makes of the condition."""

    def __init__(self, parts: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.parts, self.modulation = parts, nn.Linear(C, 6 * C)
        self.norm1, self.norm2 = (nn.LayerNorm(C, elementwise_affine=False) for _ in range(2))
        self.qkv, self.o, self.mlp = nn.Linear(C, 3 * C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        a, b, gate, c, d, gate_mlp = self.parts(self.modulation(F.silu(x.detach().mean(1, keepdim=True) * 0)))
        y = self.norm1(x) * (1 + a) + b
        x = x + gate * self.o(whole(*self.qkv(y).chunk(3, -1)))
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + c) + d)


@pytest.mark.parametrize(
    "parts",
    [
        lambda m: m.chunk(6, -1),
        lambda m: m.split(C, -1),
        lambda m: m.unflatten(-1, (6, C)).unbind(-2),
        lambda m: [m[..., i * C : (i + 1) * C] for i in range(6)],
    ],
    ids=["chunk", "split", "unbind", "slices"],
)
@pytest.mark.parametrize("grad", [False, True])
def test_a_norm_that_is_modulated(parts, grad):
    """Fails if the sum with the shift is taken for one of the residual stream, as shift and scale come from one layer."""
    model = nn.Sequential(AdaLN(parts), AdaLN(parts))
    expected = {f"{i}.norm{k}": role for i in (0, 1) for k, role in ((1, "attention"), (2, "MLP"))}
    assert roles(model, tokens(), grad=grad) == expected


def test_one_norm_before_both():
    """Fails if a norm that feeds attention and MLP side by side has one of them alone."""

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.qkv, self.o, self.mlp = (
                nn.LayerNorm(C),
                nn.Linear(C, 3 * C),
                nn.Linear(C, C),
                nn.Linear(C, C),
            )

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(x)
            return x + self.o(whole(*self.qkv(y).chunk(3, -1))) + torch.relu(self.mlp(y))

    assert roles(nn.Sequential(Parallel()), tokens()) == {"0.norm": "attention and MLP"}


class GatedAttention(nn.Module):
    """As in Qwen3-Next: part of what makes the queries is a gate on what attention returns."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.o = nn.RMSNorm(C), *(nn.Linear(C, C) for _ in range(4))
        self.gate = nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (part(y).unflatten(2, (4, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return x + self.o(whole(q, k, v).transpose(1, 2).flatten(2) * self.gate(y).sigmoid())


def test_a_gate_on_attention_is_no_branch():
    """Fails if what multiplies the output of attention is taken for an MLP beside it."""
    assert roles(nn.Sequential(GatedAttention()), tokens()) == {"0.norm": "attention"}


class Experts(nn.Module):
    """Tokens sorted by the expert that they choose, whose offsets are running sums."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.router, self.up = nn.RMSNorm(C), nn.Linear(C, 3), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).reshape(-1, C)
        expert = self.router(y).argmax(-1)
        ends = torch.bincount(expert, minlength=3).cumsum(0)
        y = y[expert.argsort()] * (ends[expert.sort().values, None] > 0)
        return x + self.up(y)[expert.argsort().argsort()].view_as(x)


class AddedUp(nn.Module):
    """Each position sees the sum of those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up = nn.RMSNorm(C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.norm(x)).cumsum(1)


def test_experts_are_an_mlp_and_running_sums_a_mixer():
    """Fails if the running counts of a mixture of experts are taken for positions that see each other."""
    assert roles(nn.Sequential(Experts()), tokens()) == {"0.norm": "MLP"}
    assert roles(nn.Sequential(AddedUp()), tokens()) == {"0.norm": "mixer"}


def test_a_norm_whose_projection_is_the_stream_is_an_embedding():
    """Fails if it is taken for one of keys, as all of queries, keys and values come from it."""

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.into, self.qkv = nn.LayerNorm(C), nn.Linear(C, C), nn.Linear(C, 3 * C)

        def forward(self, x: Tensor) -> Tensor:
            y = self.into(self.norm(x))
            return y + whole(*self.qkv(y).chunk(3, -1))

    assert roles(nn.Sequential(nn.Linear(C, C), Projected()), tokens()) == {"1.norm": "embedding"}


def test_no_role_without_a_stream():
    """Fails if norms of plain layers are given one."""
    model = nn.Sequential(nn.Linear(C, C), nn.LayerNorm(C), nn.ReLU(), nn.Linear(C, C))
    assert roles(model, tokens()) == {"1": ""}
