"""What norms over channels do to tokens, slow and obvious: one token after another, in float64, nothing from bnprobe.

`x` has shape (N sequences, P positions, C channels).
"""

from __future__ import annotations

import math

import numpy as np


def scales(x: np.ndarray, eps: float, centred: bool) -> np.ndarray:
    """r of each token, shape (N, P)."""
    x = np.asarray(x, dtype=np.float64)
    d = x - x.mean(-1, keepdims=True) if centred else x
    return np.sqrt((d * d).mean(-1) + eps)


def divided(x: np.ndarray, eps: float, centred: bool) -> np.ndarray:
    """z of each token, shape (N, P, C)."""
    x = np.asarray(x, dtype=np.float64)
    d = x - x.mean(-1, keepdims=True) if centred else x
    return d / scales(x, eps, centred)[..., None]


def bucket(position: int) -> int:
    """0, 1, 2-3, 4-7, ..."""
    return 0 if position == 0 else int(math.log2(position)) + 1


def position_share(r: np.ndarray) -> float:
    """Variance of log r between buckets of positions over all variance of log r."""
    log = np.log(r)
    buckets = np.array([bucket(p) for p in range(r.shape[1])])
    between = 0.0
    for b in set(buckets.tolist()):
        here = log[:, buckets == b]
        between += here.size * (here.mean() - log.mean()) ** 2
    return float(between / ((log - log.mean()) ** 2).sum())


def common(z: np.ndarray) -> float:
    """The mean cosine between two tokens, a token with itself included."""
    return float((z.reshape(-1, z.shape[-1]).mean(0) ** 2).sum() / z.shape[-1])


def dims(z: np.ndarray) -> float:
    """C^2 over the mean of (z . z')^2 over all pairs of other sequences and other positions."""
    products = []
    for n, one in enumerate(z):
        for m, other in enumerate(z):
            for p, a in enumerate(one):
                products += [float(a @ b) ** 2 for q, b in enumerate(other) if m != n and q != p]
    return z.shape[-1] ** 2 / float(np.mean(products))


def mean_excess(x: np.ndarray) -> float:
    """C times the mean share of a token's energy that is in its mean."""
    x = np.asarray(x, dtype=np.float64)
    return float(x.shape[-1] * (x.mean(-1) ** 2 / (x * x).mean(-1)).mean())


def branch(before: np.ndarray, now: np.ndarray) -> float:
    """Geometric mean over tokens of |now - before| / |before|."""
    ratios = np.linalg.norm(now - before, axis=-1) / np.linalg.norm(before, axis=-1)
    return float(np.exp(np.log(ratios).mean()))
