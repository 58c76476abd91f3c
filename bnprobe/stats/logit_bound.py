"""What logits of attention cannot exceed by the weights alone: one formula for files and for passes that were watched.

C channels of the norm that feeds attention, H heads of D channels, K heads of keys, which several of the queries may share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from bnprobe.stats.moments import Array


class Rows(NamedTuple):
    """Weights (n, C) of queries or keys: `read` gives some rows as float64. `bias` (n,), and the first row of each head."""

    read: Callable[[int, int], Array]
    bias: Array | None
    starts: list[int]


def one_after_another(n: int, n_keys: int, size: int) -> tuple[list[int], list[int]]:
    """The first rows of the heads of queries and of keys in one matrix that holds all queries, then all keys."""
    return [h * size for h in range(n)], [(n + h) * size for h in range(n_keys)]


def by_group(n: int, n_keys: int, size: int) -> tuple[list[int], list[int]]:
    """The same of one that holds, for every head of keys, the queries that share it, these keys and their values."""
    shared = n // n_keys
    whole = (shared + 2) * size
    return (
        [h // shared * whole + h % shared * size for h in range(n)],
        [h * whole + shared * size for h in range(n_keys)],
    )


def of_weights(
    queries: Rows, keys: Rows, gamma: Array, beta: Array | None, size: int, factor: float = 0.0
) -> float:
    """The largest singular value over heads of D = `size` channels of WqᵀWk, γ folded, times C and the factor (0 for 1/√D).

    γ and β, shape (C,), are those of the norm whose outputs both take. NaN where weights are not finite.
    """
    fold = _Fold(gamma, beta, size)
    largest = max(_largest_squares(queries, keys, fold), default=math.nan)
    biased = beta is not None or queries.bias is not None or keys.bias is not None
    return math.sqrt(largest) * (len(gamma) + biased) * (factor or 1 / math.sqrt(size))


def of_norms(query: Array, key: Array, n_heads: int, factor: float = 0.0) -> float:
    """√D · max |γq γk|, of the γ of norms of queries and keys: over each head, or over all heads, which have H · D then.

    NaN where keys have other sizes than queries.
    """
    n = n_heads or 1
    size = len(query) // n
    if not size or len(key) % size or n % (len(key) // size):
        return math.nan
    q, k = np.abs(query).reshape(n, size), np.abs(key).reshape(-1, size)
    k = np.repeat(k, n // len(k), axis=0)
    return float((q * k).max()) * math.sqrt(len(query) * len(key)) * (factor or 1 / math.sqrt(size))


class _Fold(NamedTuple):
    gamma: Array
    beta: Array | None
    size: int

    def gram(self, rows: Rows, begin: int) -> Array:
        """The products of the rows of a head with each other, γ, β and bias in them; shape (D, D)."""
        weights = rows.read(begin, begin + self.size)
        bias = np.zeros(self.size) if rows.bias is None else rows.bias[begin : begin + self.size]
        if self.beta is not None:
            bias = bias + weights @ self.beta
        weights = weights * self.gamma
        return np.asarray(weights @ weights.T + np.outer(bias, bias))


def _largest_squares(queries: Rows, keys: Rows, fold: _Fold) -> Iterator[float]:
    """By head the square of the largest singular value of WqᵀWk: the largest eigenvalue of WqWqᵀ · WkWkᵀ."""
    n, n_keys = len(queries.starts), len(keys.starts)
    for group in range(n_keys):
        of_keys = fold.gram(keys, keys.starts[group])
        for head in range(group * n // n_keys, (group + 1) * n // n_keys):
            of_queries = fold.gram(queries, queries.starts[head])
            if not (np.isfinite(of_keys).all() and np.isfinite(of_queries).all()):
                yield math.nan
                return
            values, vectors = np.linalg.eigh(of_queries)
            root = vectors * np.sqrt(np.maximum(values, 0))
            yield max(float(np.linalg.eigvalsh(root.T @ of_keys @ root)[-1]), 0.0)
