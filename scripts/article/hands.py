"""The real inputs and outputs of norms, read with plain hooks, and their statistics by the obvious formulas.

bnprobe derives what stands after a norm from what stands before it. An experiment that asks whether that is
right must not do the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from scipy.stats import norm as gauss
from torch import Tensor, nn

Array = np.ndarray


@torch.no_grad()
def values(
    model: nn.Module, names: Iterable[str], inputs: Iterable[Tensor]
) -> dict[str, tuple[Array, Array]]:
    """Inputs and outputs of the named modules over all batches, float64, shape (values, C) each."""
    seen: dict[str, tuple[list[Array], list[Array]]] = defaultdict(lambda: ([], []))
    hooks = []
    for name in names:

        def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor, name: str = name) -> None:
            for kept, tensor in zip(seen[name], (args[0], output), strict=True):
                # a copy: a ReLU may write into the tensor afterwards
                kept.append(tensor.movedim(1, -1).reshape(-1, tensor.shape[1]).double().numpy().copy())

        hooks.append(model.get_submodule(name).register_forward_hook(keep))
    try:
        for x in inputs:
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (np.concatenate(before), np.concatenate(after)) for name, (before, after) in seen.items()}


def skewness(x: Array) -> Array:
    """Mean cubed Z-score per column, (C,); NaN where a column is constant."""
    return (z_scores(x) ** 3).mean(axis=0)


def kurtosis(x: Array) -> Array:
    """Mean fourth power of the Z-scores minus 3 per column, (C,)."""
    return (z_scores(x) ** 4).mean(axis=0) - 3


def z_scores(x: Array) -> Array:
    """(x − mean) / standard deviation per column, divisor n; NaN where the standard deviation is nothing but rounding."""
    deviation = x.std(axis=0)
    some = deviation > 1e-9 * (np.abs(x).max(axis=0) + 1e-300)
    return (x - x.mean(axis=0)) / np.where(some, deviation, np.nan)


def change_of_shape(before: Array, after: Array, sign: Array) -> Array:
    """How much skewness and kurtosis change from `before` to `after`, (C,): the larger of the two.

    Each relative to 1 + its size before. `sign` (C,) is that of γ: a negative one mirrors, and turns the skewness.
    """
    skew, kurt = skewness(before), kurtosis(before)
    return np.maximum(
        np.abs(skewness(after) - sign * skew) / (1 + np.abs(skew)),
        np.abs(kurtosis(after) - kurt) / (1 + np.abs(kurt)),
    )


def distance(x: Array, mean: Array, deviation: Array) -> Array:
    """How far values must be carried on average to be spread as N(mean, deviation²), in standard deviations, (C,).

    The 1-Wasserstein distance: sorted values against the quantiles of the Gaussian.
    """
    n = len(x)
    quantiles = gauss.ppf((np.arange(n) + 0.5) / n)[:, None]
    return np.abs((np.sort(x, axis=0) - mean) / deviation - quantiles).mean(axis=0)
