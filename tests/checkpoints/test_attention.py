"""What logits the weights of attention allow, against singular values of whole matrices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import bnprobe
from bnprobe.checkpoints.attention import Heads, largest_logits
from bnprobe.checkpoints.config import Config
from bnprobe.checkpoints.groups import grouped
from bnprobe.weights import state_of
from bnprobe.weights.with_torch.ram import in_ram

C, D = 12, 4

State = dict[str, Tensor]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def norm(name: str, n: int = C, beta: bool = False) -> State:
    vectors = {f"{name}.weight": drawn(n) + 1}
    return vectors | ({f"{name}.bias": drawn(n, 1)[:, 0]} if beta else {})


def bounds(state: State, heads: Heads | None) -> dict[str, float]:
    read = state_of(state, in_ram)
    known = Config(attention={} if heads is None else {"": heads})
    norms = grouped(read).norms
    gains = {norm.path: norm.vectors["gamma"].float64() for norm in norms}
    return largest_logits(read, norms, known, gains)


def by_hand(
    queries: Tensor,
    keys: Tensor,
    gamma: Tensor,
    h: int,
    k: int,
    *,
    shift: tuple[Tensor, Tensor] | None = None,
) -> float:
    """From matrices (heads * D, C), and what is added to queries and keys."""
    q, key = (w.double().numpy() * gamma.double().numpy() for w in (queries, keys))
    if shift is not None:
        q, key = (
            np.concatenate([w, b.double().numpy()[:, None]], 1) for w, b in zip((q, key), shift, strict=True)
        )
    q, key = q.reshape(h, -1, q.shape[1]), key.reshape(k, -1, key.shape[1])
    size = q.shape[1]
    largest = max(np.linalg.norm(q[i].T @ key[i * k // h], 2) for i in range(h))
    return float(largest) * q.shape[2] / math.sqrt(size)


def grouped_queries() -> tuple[State, Heads | None, str, float]:
    """As in Llama and GGUF: 3 heads of queries for 1 of keys."""
    name, block = "blk.3.attn_norm", "blk.3"
    q, k = drawn(3 * D, C), drawn(D, C)
    state = norm(name) | {f"{block}.attn_q.weight": q, f"{block}.attn_k.weight": k} | norm("blk.3.ffn_norm")
    return state, Heads(3), name, by_hand(q, k, state[f"{name}.weight"], 3, 1)


def turned_and_shifted() -> tuple[State, Heads | None, str, float]:
    """As in GPT-2: one matrix (inputs, outputs) for all, biases, and a layer norm with β."""
    name = "h.0.ln_1"
    w, b = drawn(C, 3 * C), drawn(3 * C)
    state = norm(name, beta=True) | {"h.0.attn.c_attn.weight": w, "h.0.attn.c_attn.bias": b}
    beta = state[f"{name}.bias"]
    shift = (b[:C] + w[:, :C].T @ beta, b[C : 2 * C] + w[:, C : 2 * C].T @ beta)
    return (
        state,
        Heads(3),
        name,
        by_hand(w[:, :C].T, w[:, C : 2 * C].T, state[f"{name}.weight"], 3, 3, shift=shift),
    )


def interleaved() -> tuple[State, Heads | None, str, float]:
    """As in GPT-NeoX: queries, keys and values head by head."""
    name, w = "layers.1.input_layernorm", drawn(3 * C, C)
    state = norm(name) | {"layers.1.attention.query_key_value.weight": w}
    parts = w.reshape(3, 3, D, C)
    return (
        state,
        Heads(3),
        name,
        by_hand(parts[:, 0].reshape(-1, C), parts[:, 1].reshape(-1, C), state[f"{name}.weight"], 3, 3),
    )


def of_few_keys_together() -> tuple[State, Heads | None, str, float]:
    """As in Phi-3, with a factor of its own: 3 heads of queries, then 1 of keys and 1 of values."""
    name, w = "layers.0.input_layernorm", drawn(5 * D, C)
    state = norm(name) | {"layers.0.self_attn.qkv_proj.weight": w}
    expected = by_hand(w[: 3 * D], w[3 * D : 4 * D], state[f"{name}.weight"], 3, 1)
    return state, Heads(3, 1, factor=0.25), name, expected * math.sqrt(D) * 0.25


def of_one_key_in_other_words() -> tuple[State, Heads | None, str, float]:
    """As in Falcon, whose config says `multi_query`: one head of keys, seen by the size of the matrix."""
    name, w = "h.0.input_layernorm", drawn(5 * D, C)
    state = norm(name) | {"h.0.self_attention.query_key_value.weight": w}
    expected = by_hand(w[: 3 * D], w[3 * D : 4 * D], state[f"{name}.weight"], 3, 1)
    return state, Heads(3, 3, D), name, expected


def by_groups_together() -> tuple[State, Heads | None, str, float]:
    """As in InternLM: 4 heads of queries, two and two behind which stand their keys and values."""
    name, w = "layers.0.input_layernorm", drawn(8 * D, C)
    state = norm(name) | {"layers.0.attention.query_key_value.weight": w}
    parts = w.reshape(2, 4, D, C)
    q, k = parts[:, :2].reshape(-1, C), parts[:, 2].reshape(-1, C)
    return state, Heads(4, 2, D), name, by_hand(q, k, state[f"{name}.weight"], 4, 2)


def norms_of_heads() -> tuple[State, Heads | None, str, float]:
    """As in Qwen3: what queries and keys are multiplied by is all that counts, and no heads need be known."""
    name = "layers.0.self_attn.q_norm"
    state = norm(name, D) | norm("layers.0.self_attn.k_norm", D) | norm("layers.0.input_layernorm")
    state["layers.0.self_attn.k_norm.weight"] = drawn(D, 2)[:, 1]
    state |= {f"layers.0.self_attn.{part}_proj.weight": drawn(C, C) for part in "qk"}
    product = state[f"{name}.weight"] * state["layers.0.self_attn.k_norm.weight"]
    return state, None, name, math.sqrt(D) * float(product.abs().max())


def norms_over_all_heads() -> tuple[State, Heads | None, str, float]:
    """As in OLMo 2: a norm over 3 heads of queries, one over 1 of keys."""
    name = "layers.0.self_attn.q_norm"
    state = norm(name, 3 * D) | norm("layers.0.self_attn.k_norm", D)
    q, k = (state[f"layers.0.self_attn.{part}_norm.weight"].abs() for part in "qk")
    return (
        state,
        Heads(3, 1, D),
        name,
        float((q.reshape(3, D) * k).max()) * math.sqrt(3 * D * D) / math.sqrt(D),
    )


@pytest.mark.parametrize(
    "made",
    [
        grouped_queries,
        turned_and_shifted,
        interleaved,
        of_few_keys_together,
        of_one_key_in_other_words,
        by_groups_together,
        norms_of_heads,
        norms_over_all_heads,
    ],
)
def test_the_bound_is_that_of_whole_matrices(
    made: Callable[[], tuple[State, Heads | None, str, float]],
) -> None:
    """Fails if heads are cut elsewhere, keys are those of another head, or γ, β and biases are left out."""
    state, heads, name, expected = made()
    assert bounds(state, heads) == {name: pytest.approx(expected, rel=1e-6)}


def unknown() -> Iterator[tuple[State, Heads | None]]:
    state, heads, *_ = grouped_queries()
    yield state, None
    yield state, Heads(5)
    yield {name: tensor for name, tensor in state.items() if "attn_k" not in name}, heads
    yield state | {"blk.3.attn_q.weight": drawn(3 * D, C) * torch.nan}, heads
    yield {name.replace("attn_norm", "post_attention_norm"): tensor for name, tensor in state.items()}, heads
    yield {name.replace("blk.3.attn", "blk.3.cross_attn"): tensor for name, tensor in state.items()}, heads


@pytest.mark.parametrize("i", range(6))
def test_what_is_not_known_has_no_bound(i: int) -> None:
    """Fails if heads are guessed, or a norm behind a sum or another stream's attention is taken for the one before."""
    assert bounds(*list(unknown())[i]) == {}


def checked(folder: Path, size: float, config: dict[str, Any]) -> Any:
    state = norm("model.layers.0.input_layernorm") | norm("model.layers.0.post_attention_layernorm")
    q, k = drawn(3 * D, C) * size, drawn(D, C)
    state |= {"model.layers.0.self_attn.q_proj.weight": q, "model.layers.0.self_attn.k_proj.weight": k}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return bnprobe.check(folder), by_hand(q, k, state["model.layers.0.input_layernorm.weight"], 3, 1)


@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_a_file_with_its_config_has_bounds_and_a_finding_where_they_are_large(
    size: float, tmp_path: Path
) -> None:
    """Fails if the heads of config.json do not reach the table, or weights that allow any logit are not worth a word."""
    config = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": C, "rms_norm_eps": 1e-6}
    report, expected = checked(tmp_path, size, config)
    np.testing.assert_allclose(report.layers["qk_bound"], [expected, np.nan], rtol=1e-6)
    found = report.findings[report.findings["rule"] == "attention-saturates"]
    assert found["severity"].tolist() == ["info"] * (size > 1)
    assert expected > 2000 if size > 1 else expected < 2000


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"model_type": "t5", "num_heads": 3, "d_kv": D}, 1.0),
        ({"n_head": 3, "n_embd": C, "query_pre_attn_scalar": 64}, 1 / 8),
        ({"text_config": {"num_attention_heads": 3}, "vision_config": {"num_attention_heads": 2}}, None),
        ({"num_attention_heads": True}, None),
        ({"num_attention_heads": "3"}, None),
    ],
)
def test_configs_name_heads_in_their_own_ways(
    config: dict[str, Any], factor: float | None, tmp_path: Path
) -> None:
    """Fails if a factor of the logits is not known, or heads of another part of the model are taken."""
    report, expected = checked(tmp_path, 1.0, config)
    found = report.layers["qk_bound"][0]
    if factor is None:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(expected * math.sqrt(D) * factor, rel=1e-6)


def test_gains_are_those_that_are_used(tmp_path: Path) -> None:
    """Fails if norms that multiply by 1 + w allow logits as if they multiplied by w."""
    config = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": C, "model_type": "gemma"}
    state = {name: w - 1 for name, w in norm("model.layers.0.input_layernorm").items()}
    q, k = drawn(3 * D, C), drawn(D, C)
    state |= {"model.layers.0.self_attn.q_proj.weight": q, "model.layers.0.self_attn.k_proj.weight": k}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = by_hand(q, k, state["model.layers.0.input_layernorm.weight"] + 1, 3, 1)
    assert bnprobe.check(tmp_path).layers["qk_bound"][0] == pytest.approx(expected, rel=1e-6)
