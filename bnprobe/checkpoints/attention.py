"""How large the logits of attention can become by the weights alone: queries and keys of a block, found by their names.

C channels of the norm that feeds attention, H heads of D channels, K heads of keys, which several of the queries may share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from bnprobe.checkpoints.groups import Norm
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
"""Head by head its queries, keys and values; the others hold all queries, then all keys."""

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


class _Rows(NamedTuple):
    """Weights (outputs, C), as rows that can be read apart, and their biases."""

    read: Callable[[int, int], Array]
    bias: Array | None
    n: int


def largest_logits(state: State, norms: Iterable[Norm], known: KnowsHeads) -> dict[str, float]:
    """For each norm whose output attention takes, by its path, what its logits cannot exceed.

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
            found[of["query"].path] = _of_norms(of["query"], of["key"], known.heads(of["query"].path))
        elif "before" in of and block in blocks and "query" not in of:
            found[of["before"].path] = _of_weights(state, blocks[block], of["before"], known)
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


def _of_norms(query: Norm, key: Norm, heads: Heads | None) -> float:
    """Of norms over each head, or over all heads together: then one of them may hold all."""
    q, k = (np.abs(norm.vectors["gamma"].float64()) for norm in (query, key))
    n = heads.n if heads and heads.size and len(q) == heads.n * heads.size else 1
    size = len(q) // n
    if not size or len(k) % size or n % (len(k) // size):
        return math.nan
    q, k = q.reshape(n, size), k.reshape(-1, size)
    k = np.repeat(k, n // len(k), axis=0)
    factor = heads.factor if heads and heads.factor else 1 / math.sqrt(size)
    return float((q * k).max()) * math.sqrt(query.n_channels * key.n_channels) * factor


def _of_weights(state: State, block: Mapping[str, str], norm: Norm, known: KnowsHeads) -> float:
    heads = known.heads(norm.path)
    if heads is None or not heads.n:
        return math.nan
    c, n, n_keys = norm.n_channels, heads.n, heads.n_keys or heads.n
    if "q" in block and "k" in block:
        queries, keys = (_rows(state, block[part], c) for part in ("q", "k"))
        if queries is None or keys is None or queries.n % n:
            return math.nan
        size = queries.n // n
        if keys.n % size or n % (keys.n // size):
            return math.nan
        n_keys, starts = keys.n // size, (lambda h: h * size, lambda h: h * size)
    elif "qkv" in block:
        together = _rows(state, block["qkv"], c)
        if together is None or together.n % (n + 2 * n_keys):
            return math.nan
        queries = keys = together
        size = together.n // (n + 2 * n_keys)
        if block["qkv"].endswith(INTERLEAVED):
            if n_keys != n:
                return math.nan
            starts = (lambda h: 3 * h * size, lambda h: (3 * h + 1) * size)
        else:
            starts = (lambda h: h * size, lambda h: (n + h) * size)
    else:
        return math.nan
    gamma, beta = norm.vectors["gamma"].float64(), norm.vectors.get("beta")
    fold = _Fold(gamma, None if beta is None else beta.float64())
    squares = _largest_squares(queries, keys, fold, starts, n, n_keys, size)
    largest = max(squares, default=math.nan)
    biased = fold.beta is not None or queries.bias is not None or keys.bias is not None
    return math.sqrt(largest) * (c + biased) * (heads.factor or 1 / math.sqrt(size))


class _Fold(NamedTuple):
    gamma: Array
    beta: Array | None

    def gram(self, rows: _Rows, begin: int, size: int) -> Array:
        """The products of the rows of a head with each other, γ, β and bias in them; shape (D, D)."""
        weights = wide(rows.read(begin, begin + size))
        bias = np.zeros(size) if rows.bias is None else rows.bias[begin : begin + size]
        if self.beta is not None:
            bias = bias + weights @ self.beta
        weights = weights * self.gamma
        return np.asarray(weights @ weights.T + np.outer(bias, bias))


def _largest_squares(
    queries: _Rows,
    keys: _Rows,
    fold: _Fold,
    starts: tuple[Callable[[int], int], Callable[[int], int]],
    n: int,
    n_keys: int,
    size: int,
) -> Iterator[float]:
    """By head the square of the largest singular value of WqᵀWk: the largest eigenvalue of WqWqᵀ · WkWkᵀ."""
    for group in range(n_keys):
        of_keys = fold.gram(keys, starts[1](group), size)
        for head in range(group * n // n_keys, (group + 1) * n // n_keys):
            of_queries = fold.gram(queries, starts[0](head), size)
            if not (np.isfinite(of_keys).all() and np.isfinite(of_queries).all()):
                yield math.nan
                return
            values, vectors = np.linalg.eigh(of_queries)
            root = vectors * np.sqrt(np.maximum(values, 0))
            yield max(float(np.linalg.eigvalsh(root.T @ of_keys @ root)[-1]), 0.0)


def _rows(state: State, module: str, c: int) -> _Rows | None:
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
    return _Rows(read, bias.float64() if fits and bias is not None else None, n)
