"""Slow and obvious: loops, `math.fsum` and float64, and nothing imported from bnprobe.

Axes: N samples, C channels, P positions. `rows` always has shape (N, C, P).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

FIELDS = ("n", "mean", "m2", "m3", "m4", "low", "high")


# Statistics


def moments_of_one(values: Iterable[float]) -> dict[str, float]:
    """Two passes over one variable; non-finite values are left out."""
    x = [float(v) for v in values if math.isfinite(v)]
    if not x:
        return {"n": 0, "mean": 0.0, "m2": 0.0, "m3": 0.0, "m4": 0.0, "low": math.inf, "high": -math.inf}
    mean = total(x) / len(x)
    with np.errstate(all="ignore"):
        sums = {f"m{k}": total((np.float64(v) - mean) ** k for v in x) for k in (2, 3, 4)}
    return {"n": len(x), "mean": mean, **sums, "low": min(x), "high": max(x)}


def total(values: Iterable[float]) -> float:
    """`math.fsum`; where that refuses, what adding gives: infinity past the largest number, NaN for inf - inf."""
    x = [float(v) for v in values]
    try:
        return math.fsum(x)
    except (OverflowError, ValueError):
        return sum(x)


def moments(values: np.ndarray) -> dict[str, np.ndarray]:
    """Moments over the first axis of `values`, for each entry of the other axes."""
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), int(np.prod(values.shape[1:])))
    each = [moments_of_one(flat[:, i]) for i in range(flat.shape[1])]
    return {f: np.array([one[f] for one in each], dtype=np.float64).reshape(values.shape[1:]) for f in FIELDS}


def channel_moments(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Moments of every channel over samples and positions."""
    return moments(np.moveaxis(rows, 1, 2).reshape(-1, rows.shape[1]))


def finished(one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Variance (divisor n), skewness and excess kurtosis by their textbook definitions."""
    with np.errstate(all="ignore"):
        var = one["m2"] / one["n"]
        return {
            "var": var,
            "skew": (one["m3"] / one["n"]) / var**1.5,
            "kurtosis": (one["m4"] / one["n"]) / var**2 - 3,
        }


ADDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nonfinite": lambda x: ~np.isfinite(x),
    "positive": lambda y: y > 0,
}
"""What a value, finite or not, adds to each sum that `stats.fields` declares; values of the gate, where it is of that."""


def sum_of(name: str, rows: np.ndarray) -> np.ndarray:
    """One of the sums of `stats.fields` of every channel, shape (C,)."""
    return np.array([total(ADDS[name](rows[:, c].ravel())) for c in range(rows.shape[1])])


def sums_of(sums: Iterable[Any], sides: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each of `stats.fields.SUMS` by the names that the record has for it, from the rows of each side of a norm."""
    return {
        field: sum_of(s.name, sides[side]) for s in sums for side, field in s.record.items() if side in sides
    }


def n_nonfinite(rows: np.ndarray) -> np.ndarray:
    return sum_of("nonfinite", rows)


def n_positive(rows: np.ndarray) -> np.ndarray:
    return sum_of("positive", rows)


def images(batches: list[np.ndarray], origin: np.ndarray) -> dict[str, np.ndarray]:
    """Per channel: the spread over images of (mean, mean square about `origin`) of one image's values."""
    n_channels = len(origin)
    result: dict[str, list[float]] = {name: [] for name in ("n", "a", "b", "aa", "bb", "ab")}
    for c in range(n_channels):
        a, b = [], []
        for rows in batches:
            for image in rows[:, c]:
                d = [v - origin[c] for v in image if math.isfinite(v)]
                if d:
                    a.append(math.fsum(d) / len(d))
                    b.append(math.fsum(v * v for v in d) / len(d))
        mean_a = math.fsum(a) / len(a) if a else 0.0
        mean_b = math.fsum(b) / len(b) if b else 0.0
        pairs = [(i - mean_a, j - mean_b) for i, j in zip(a, b, strict=True)]
        found = {
            "n": len(a),
            "a": mean_a,
            "b": mean_b,
            "aa": math.fsum(i * i for i, _ in pairs),
            "bb": math.fsum(j * j for _, j in pairs),
            "ab": math.fsum(i * j for i, j in pairs),
        }
        for name, value in found.items():
            result[name].append(value)
    return {name: np.array(values, dtype=np.float64) for name, values in result.items()}


def folds(batches: list[np.ndarray], origin: np.ndarray, n_folds: int = 20) -> dict[str, Any]:
    """The batches dealt to folds one after another, those without images skipped; sums over the images of each fold."""
    full = [rows for rows in batches if images([rows], origin)["n"].any()]
    each = [images(full[k::n_folds], origin) for k in range(min(n_folds, len(full)))]
    within = [images([rows], origin)["aa"] for rows in full]
    return {
        "origin": origin,
        "n": np.array([fold["n"] for fold in each]),
        "a": np.array([fold["n"] * fold["a"] for fold in each]),
        "b": np.array([fold["n"] * fold["b"] for fold in each]),
        "within": np.array(within).sum(axis=0),
        "n_batches": len(full),
    }


def bin_of(z: float) -> int:
    """The bin of one z, by walking outwards: 8 bins in [0, 1), 8 in [1, 3), 8 in [3, 7) ... up to 63."""
    edge, width, steps = 0.0, 1 / 8, 0
    while steps < 47 and abs(z) >= edge + width:
        edge += width
        steps += 1
        if steps % 8 == 0:
            width *= 2
    return 47 - steps if z < 0 else 48 + steps


def histogram(rows: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Counts per channel of (x - centre) / scale; finite values only. Shape (C, 96)."""
    counts = np.zeros((rows.shape[1], 96))
    for c in range(rows.shape[1]):
        for v in rows[:, c].ravel():
            if math.isfinite(v):
                counts[c, bin_of((float(v) - centre[c]) / scale[c])] += 1
    return counts


# Norms, each from its paper's formula, on rows (N, C, P)


def batch_norm(x: np.ndarray, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """Statistics of the batch per channel, divisor n (Ioffe & Szegedy 2015)."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        mean = x[:, c].mean()
        var = ((x[:, c] - mean) ** 2).mean()
        y[:, c] = (x[:, c] - mean) / math.sqrt(var + eps)
    return _scaled(y, gamma, beta)


def stored_norm(x: np.ndarray, mean: Any, var: Any, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """Stored statistics per channel: batch norm in evaluation."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        y[:, c] = (x[:, c] - mean[c]) / math.sqrt(var[c] + eps)
    return _scaled(y, gamma, beta)


def group_norm(x: np.ndarray, n_groups: int, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """Statistics of each sample and group of neighbouring channels; instance norm when n_groups = C."""
    y, size = np.empty_like(x), x.shape[1] // n_groups
    for i in range(len(x)):
        for g in range(n_groups):
            part = x[i, g * size : (g + 1) * size]
            var = ((part - part.mean()) ** 2).mean()
            y[i, g * size : (g + 1) * size] = (part - part.mean()) / math.sqrt(var + eps)
    return _scaled(y, gamma, beta)


def layer_norm(x: np.ndarray, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """Mean and variance over the channels of each position."""
    y = np.empty_like(x)
    for i in range(len(x)):
        for p in range(x.shape[2]):
            part = x[i, :, p]
            var = ((part - part.mean()) ** 2).mean()
            y[i, :, p] = (part - part.mean()) / math.sqrt(var + eps)
    return _scaled(y, gamma, beta)


def rms_norm(x: np.ndarray, gamma: Any, beta: Any, eps: float) -> np.ndarray:
    """Root mean square over the channels of each position; no mean is taken out."""
    y = np.empty_like(x)
    for i in range(len(x)):
        for p in range(x.shape[2]):
            y[i, :, p] = x[i, :, p] / math.sqrt((x[i, :, p] ** 2).mean() + eps)
    return _scaled(y, gamma, beta)


def _scaled(y: np.ndarray, gamma: Any, beta: Any) -> np.ndarray:
    for c in range(y.shape[1]):
        y[:, c] = y[:, c] * (1.0 if gamma is None else gamma[c]) + (0.0 if beta is None else beta[c])
    return y


def own_statistics(
    batches: list[np.ndarray], pools: str, eps: float, n_groups: int = 1, centred: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """What an instance, group, layer or RMS norm itself computes: means and log(variance + eps).

    Each of shape (K, V): K times computed, V = C for instance norm, G for group norm, 1 over channels.
    """
    means, logs = [], []
    for rows in batches:
        for image in rows:
            if pools == "channels":
                parts = [[image[:, p]] for p in range(image.shape[1])]
            else:
                parts = [np.split(image, len(image) if pools == "instance" else n_groups)]
            for one in parts:
                with np.errstate(all="ignore"):  # what is not finite stays so, as in the norm
                    means.append([part.mean() for part in one])
                    about = [part.mean() if centred else 0.0 for part in one]
                    squares = [((v - m) ** 2).mean() for v, m in zip(one, about, strict=True)]
                    logs.append([np.log(square + eps) for square in squares])
    return np.array(means), np.array(logs)


# Comparisons that assert inside themselves


def assert_same_moments(
    found: Any, expected: dict[str, np.ndarray], rtol: float = 1e-9, rounding: Any = 0.0
) -> None:
    """Every field agrees; central sums up to `rtol` of their natural size n sd^k.

    `rounding` is by how much the values themselves may be apart, where they are results of a computation.
    """
    n = np.asarray(expected["n"], dtype=np.float64)
    np.testing.assert_array_equal(found.n, n, err_msg="n")
    sd = np.sqrt(expected["m2"] / np.maximum(n, 1))
    far = np.where(n > 0, np.maximum(np.abs(expected["low"]), np.abs(expected["high"])), 0.0)
    # what rounding of the values themselves does to a deviation
    sd = sd + np.maximum(far * 1e-15, rounding) / rtol
    far = far + np.where(n > 0, rounding, 0.0) / rtol
    for name in FIELDS[1:]:
        size = far if name in ("mean", "low", "high") else n * sd ** int(name[1:])
        real, true = getattr(found, name), np.asarray(expected[name])
        assert real.shape == true.shape, f"{name}: shape {real.shape}, expected {true.shape}"
        empty = n == 0
        np.testing.assert_array_equal(real[empty], true[empty], err_msg=f"{name} of nothing")
        gap = np.abs(np.where(empty, 0.0, real) - np.where(empty, 0.0, true))
        worst = np.max(np.where(gap > 0, gap / np.maximum(size, 1e-300), 0.0), initial=0.0)
        assert worst <= rtol, f"{name}: {worst:.2e} of its natural size apart\n{real}\n{true}"


def assert_same_images(found: Any, expected: dict[str, np.ndarray], rtol: float = 1e-9) -> None:
    """Every field agrees; sums of products up to `rtol` of the size that Cauchy and Schwarz allow."""
    np.testing.assert_array_equal(found.n, expected["n"], err_msg="n")
    size = {
        "a": np.sqrt(expected["b"]),
        "b": expected["b"],
        "aa": expected["n"] * expected["b"],
        "bb": expected["n"] * expected["b"] ** 2,
        "ab": expected["n"] * expected["b"] ** 1.5,
    }
    for name, natural in size.items():
        gap = np.abs(getattr(found, name) - expected[name])
        worst = np.max(np.where(gap > 0, gap / np.maximum(natural, 1e-300), 0.0), initial=0.0)
        assert worst <= rtol, f"{name}: {worst:.2e} apart\n{getattr(found, name)}\n{expected[name]}"


def assert_same_folds(
    found: Any, expected: dict[str, Any], rtol: float = 1e-9, in_order: bool = True
) -> None:
    """Every field agrees, up to `rtol` of the size that Cauchy and Schwarz allow.

    Batches that came in another order lie in other folds: then only all folds together are compared.
    """
    assert found.n_batches == expected["n_batches"]
    n, a, b = ((lambda v: v if in_order else v.sum(axis=0))(np.asarray(expected[name])) for name in "nab")
    size = {"n": 0 * n, "a": np.sqrt(n * b), "b": b, "within": expected["b"].sum(axis=0)}
    for name, natural in size.items():
        real = getattr(found, name)
        real = real if in_order or name == "within" else real.sum(axis=0)
        true = {"n": n, "a": a, "b": b, "within": expected["within"]}[name]
        assert real.shape == true.shape, name
        gap = np.abs(real - true)
        worst = np.max(np.where(gap > 0, gap / np.maximum(natural, 1e-300), 0.0), initial=0.0)
        assert worst <= rtol, f"{name}: {worst:.2e} apart\n{real}\n{true}"
