"""How large the logits of attention can become by the weights alone: queries and keys of a block, found by their names.

C channels of the norm that feeds attention, H heads of D channels, K heads of keys, which several of the queries may share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from bnprobe.checkpoints.groups import Norm
from bnprobe.recording import LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.stats.logit_bound import Rows, by_group, of_norms, of_weights, one_after_another
from bnprobe.weights import Array, State, Tensor
from bnprobe.weights.tensor import wide

BLOCK = re.compile(r"^(.*(?:^|[._])\d+)\.(.+)$")
"""A path up to the number of its block, and the rest."""

BEFORE = re.compile(
    r"^(input_layer_?norm|input_norm|ln_?1|norm_?1|attn_norm|attention_norm|layer_?norm_?1|layernorm_before|layer_norm)$"
)
"""What norms before attention are called, and no norms behind a sum are; those of torch's own layers may be either."""

QUERIES = ("q_proj", "query", "wq", "to_q", "q", "attn_q", "query_proj")
KEYS = ("k_proj", "key", "wk", "to_k", "k", "attn_k", "key_proj")
TOGETHER = ("qkv", "qkv_proj", "c_attn", "Wqkv", "attn_qkv", "query_key_value")
INTERLEAVED = "query_key_value"
"""For every head of keys the queries that share it, keys and values; the others hold all queries, then all keys."""

QUERY_NORMS = ("q_norm", "query_norm", "norm_q", "q_layernorm", "attn_q_norm")
KEY_NORMS = ("k_norm", "key_norm", "norm_k", "k_layernorm", "attn_k_norm")

OTHER = re.compile(r"cross|encdec|encoder_attn|attn2\.|logit_scale|indexer", re.IGNORECASE)
"""Attention to another stream, or with other products."""

MOST = 2**28
"""Numbers of a matrix from which it is not read."""


class Heads(NamedTuple):
    """Heads of queries and of keys (0 where as many), their channels (0 where not known), and what logits are multiplied by
    (0 for 1/√D)."""

    n: int
    n_keys: int = 0
    size: int = 0
    factor: float = 0.0


class KnowsHeads(Protocol):
    """What tensors alone do not say of attention."""

    def heads(self, path: str) -> Heads | None:
        """The heads of the part of the model that a path is in; None where they are not known."""


class _Weights(NamedTuple):
    """Weights (n, C), whose rows can be read apart, and their bias."""

    read: Callable[[int, int], Array]
    bias: Array | None
    n: int

    def heads(self, starts: Iterable[int]) -> Rows:
        """As rows of heads."""
        return Rows(self.read, self.bias, list(starts))


def with_bounds(
    layers: Sequence[LayerRecord], state: State, norms: Iterable[Norm], known: KnowsHeads
) -> tuple[LayerRecord, ...]:
    """The records of norms whose output attention takes with what its logits cannot exceed, by γ as they are used."""
    gains = {layer.layer: layer.gamma for layer in layers if layer.gamma is not None}
    bounds = largest_logits(state, norms, known, gains)
    return tuple(
        replace(
            layer,
            neighbours=replace(
                layer.neighbours or Neighbours("unknown", guessed=True), qk_bound=bounds[layer.layer]
            ),
        )
        if layer.layer in bounds
        else layer
        for layer in layers
    )


def largest_logits(
    state: State, norms: Iterable[Norm], known: KnowsHeads, gains: Mapping[str, Array]
) -> dict[str, float]:
    """For each norm whose output attention takes, by its path, what its logits cannot exceed with these γ.

    The largest singular value over heads of WqᵀWk, γ folded, times C and the factor. Positions that rotate queries and keys
    are left out. With norms of queries and keys that of the queries stands for both: √D · max |γq γk|.
    """
    blocks = _blocks(state)
    found: dict[str, float] = {}
    parts: dict[str, dict[str, Norm]] = {}
    for norm in norms:
        match = BLOCK.match(norm.path)
        if match and not OTHER.search(norm.path) and "gamma" in norm.vectors:
            parts.setdefault(match[1], {}).setdefault(_part(match[2]), norm)
    for block, of in parts.items():
        if "query" in of and "key" in of:
            query, key = (gains[of[part].path] for part in ("query", "key"))
            found[of["query"].path] = _of_norms(query, key, known.heads(of["query"].path))
        elif "before" in of and block in blocks and "query" not in of:
            gamma = gains[of["before"].path]
            found[of["before"].path] = _of_weights(state, blocks[block], of["before"], gamma, known)
    return {path: bound for path, bound in found.items() if math.isfinite(bound)}


def _part(rest: str) -> str:
    name = rest.rpartition(".")[2]
    if name in QUERY_NORMS or name in KEY_NORMS:
        return "query" if name in QUERY_NORMS else "key"
    return "before" if BEFORE.match(name) else ""


def _blocks(state: State) -> dict[str, dict[str, str]]:
    """By block, the names of its matrices of queries, of keys, or of both together."""
    found: dict[str, dict[str, str]] = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        match = BLOCK.match(module)
        if leaf != "weight" or not match or not _readable(tensor) or OTHER.search(name):
            continue
        last = module.rpartition(".")[2]
        for part, names in (("q", QUERIES), ("k", KEYS), ("qkv", TOGETHER)):
            if last in names:
                found.setdefault(match[1], {}).setdefault(part, module)
    return found


def _readable(tensor: Tensor) -> bool:
    return (
        tensor.is_number and tensor.dim == 2 and tensor.held and not tensor.far and 0 < tensor.numel <= MOST
    )


def _of_norms(query: Array, key: Array, heads: Heads | None) -> float:
    """Of γ over each head, or over all heads together."""
    n = heads.n if heads and heads.size and len(query) == heads.n * heads.size else 1
    return of_norms(query, key, n, heads.factor if heads else 0.0)


def _of_weights(state: State, block: Mapping[str, str], norm: Norm, gamma: Array, known: KnowsHeads) -> float:
    heads = known.heads(norm.path)
    if heads is None or not heads.n:
        return math.nan
    found = _apart(state, block, norm, heads) if "q" in block and "k" in block else None
    if found is None and "qkv" in block:
        found = _together(state, block["qkv"], norm, heads)
    if found is None:
        return math.nan
    beta = norm.vectors.get("beta")
    return of_weights(*found[:2], gamma, None if beta is None else beta.float64(), found[2], heads.factor)


def _apart(state: State, block: Mapping[str, str], norm: Norm, heads: Heads) -> tuple[Rows, Rows, int] | None:
    """Queries, keys and channels of a head, of matrices of their own."""
    queries, keys = (_weights(state, block[part], norm.n_channels) for part in ("q", "k"))
    if queries is None or keys is None or queries.n % heads.n:
        return None
    size = queries.n // heads.n
    if keys.n % size or heads.n % (keys.n // size):
        return None
    return queries.heads(range(0, queries.n, size)), keys.heads(range(0, keys.n, size)), size


def _together(state: State, module: str, norm: Norm, heads: Heads) -> tuple[Rows, Rows, int] | None:
    """The same of one matrix that makes queries, keys and values."""
    together = _weights(state, module, norm.n_channels)
    if together is None:
        return None
    n, n_keys = heads.n, heads.n_keys or heads.n
    size = heads.size or together.n // (n + 2 * n_keys)
    # Falcon and GPT-BigCode share one head of keys, and say so in another word
    if together.n == (n + 2) * size:
        n_keys = 1
    if together.n != (n + 2 * n_keys) * size or n % n_keys:
        return None
    layout = by_group if module.endswith(INTERLEAVED) else one_after_another
    queries, keys = layout(n, n_keys, size)
    return together.heads(queries), together.heads(keys), size


def _weights(state: State, module: str, c: int) -> _Weights | None:
    """The weights of a module as rows of C numbers; None where they have other sizes."""
    weight, bias = state[f"{module}.weight"], state.get(f"{module}.bias")
    if weight.shape[1] == c:
        read, n = weight.rows, weight.shape[0]
    elif weight.shape[0] == c:  # (inputs, outputs), as GPT-2 stores them
        turned = weight.array().T
        read, n = (lambda begin, end: turned[begin:end]), len(turned)
    else:
        return None
    fits = bias is not None and bias.is_number and bias.shape == (n,)
    return _Weights(
        lambda begin, end: wide(read(begin, end)), bias.float64() if fits and bias is not None else None, n
    )
