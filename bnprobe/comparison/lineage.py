"""Whether channel c of A and channel c of B are the same channel: two states of one network, or two trained apart.

Networks trained apart from other initial weights learn channels in another order, so what one channel stores says nothing
of the same channel on the other side: within a layer nothing correlates across channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from bnprobe.comparison.pairs import Pair
from bnprobe.comparison.stored import weights_before
from bnprobe.recording import LayerRecord
from bnprobe.recording.names import VECTORS
from bnprobe.stats.moments import Array

FEW_CHANNELS = 8
"""Channels of a layer below which its correlation says little."""

UNLIKE = 0.5
"""Correlation across channels below which sides have nothing in common. Of two states of one training it was 0.6 and more
from the fifth batch to the last, of networks trained apart within ±0.3 for sixteen channels a layer."""

ERRORS = 3.0
"""Standard errors that are added to the common correlation before it is called small."""


LENGTHS = "filter lengths"
"""A vector that says nothing where one side's norm was folded into the filters, and holds nothing of its own any more."""


def _learned(record: LayerRecord) -> bool:
    """Whether a norm has a vector that varies over its channels."""
    own = (getattr(record, name) for name in VECTORS)
    return any(vector is not None and np.ptp(vector) > 0 for vector in own)


def _vectors() -> Mapping[str, Callable[[LayerRecord], Array | None]]:
    return {
        "γ": lambda record: record.gamma,
        "β": lambda record: record.beta,
        "running means": lambda record: record.running_mean,
        "running variances": lambda record: _log(record.running_var),
        LENGTHS: lambda record: _log(filter_lengths(record)),
    }


def correlations(common: Iterable[Pair]) -> dict[str, tuple[float, float]]:
    """Correlation across channels and its standard error per vector, over all layers that have it and vary in it.

    Pooled as Fisher's z, each layer weighted by its channels, so that what whole layers have in common counts nothing.
    """
    sides = [pair for pair in common if pair.a.call == 0]
    found: dict[str, tuple[float, float]] = {}
    for name, vector in _vectors().items():
        alike = sides if name != LENGTHS else [pair for pair in sides if _learned(pair.a) == _learned(pair.b)]
        pooled = [z for pair in alike if (z := _z(vector(pair.a), vector(pair.b))) is not None]
        if pooled:
            weight = sum(n for _, n in pooled)
            found[name] = float(np.tanh(sum(z * n for z, n in pooled) / weight)), float(weight**-0.5)
    return found


def trained_apart(common: Iterable[Pair]) -> dict[str, float]:
    """The correlations, where all of them and each by itself say that channels do not correspond; else empty."""
    found = correlations(common)
    if not found:
        return {}
    weights = [error**-2 for _, error in found.values()]
    whole = sum(np.arctanh(r) * weight for (r, _), weight in zip(found.values(), weights, strict=True)) / sum(
        weights
    )
    unlike = whole + ERRORS * sum(weights) ** -0.5 < UNLIKE and all(r < UNLIKE for r, _ in found.values())
    return {name: r for name, (r, _) in found.items()} if unlike else {}


def _z(a: Array | None, b: Array | None) -> tuple[float, int] | None:
    """Fisher's z of one layer and its weight; None without enough channels that vary on both sides."""
    if a is None or b is None or a.shape != b.shape:
        return None
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if len(a) < FEW_CHANNELS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    r = float(np.corrcoef(a, b)[0, 1])
    return float(np.arctanh(np.clip(r, -0.999999, 0.999999))), len(a) - 3


def filter_lengths(record: LayerRecord) -> Array | None:
    """The length of each channel's weights before the norm, shape (C,); None where they are not known."""
    weights = weights_before(record)
    return None if weights is None else weights.norm


def _log(values: Array | None) -> Array | None:
    if values is None:
        return None
    with np.errstate(all="ignore"):
        return np.asarray(np.log(np.where(values > 0, values, np.nan)))
