"""The other side of the sum that a norm's output enters: its variance, as the norms before it imply.

Nothing is read again for it. Each norm hands on N(beta, gamma^2), terms of a sum are taken as independent,
and what activations and sums make of that is followed by N_POINTS equally likely values per channel. A
closed form that took every sum for a Gaussian again would be a quarter too low after nine blocks with
ReLU: their values are skewed. With gamma 1 and beta 0 throughout, the same walk gives the value at
initialization: after ReLU a reflected random walk, without an activation the growth by 1 per block of
De & Smith 2020, arXiv:2002.10444.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from bnprobe.graph.geometry import Source
from bnprobe.graph.graph import Node, Site
from bnprobe.graph.producer import Known, source_of
from bnprobe.graph.remembered import Remembered
from bnprobe.stats.moments import Array

QUANTILES = (
    *(-2.0368341317013883, -1.5341205443525463, -1.2581615610630967, -1.0544724517700528),
    *(-0.887146559018876, -0.7415940438615164, -0.6102946101863327, -0.4887764111146695),
    *(-0.3740954101977235, -0.2641469768259236, -0.1573106846101707, -0.05224518037594035),
    *(0.05224518037594049, 0.1573106846101707, 0.2641469768259235, 0.37409541019772363),
    *(0.4887764111146695, 0.6102946101863326, 0.7415940438615164, 0.887146559018876),
    *(1.0544724517700528, 1.2581615610630967, 1.5341205443525463, 2.036834131701388),
)
"""Of a standard Gaussian at (i + 1/2) / 24. Written out, because scipy would be loaded for them at every first look."""

N_POINTS = len(QUANTILES)


class Skips:
    """Variances of skip connections in one pass; what several blocks have in common is computed once."""

    def __init__(self, norms: Mapping[Site, Known], remembered: Remembered | None = None) -> None:
        self._norms = norms
        self._remembered = remembered or Remembered()
        self._known: dict[Any, Array | None] = {}

    def variances(self, terms: Iterable[Node], site: Node) -> tuple[Array | None, Array | None]:
        """Of the sum of `terms`, shape (C,), and at initialization; None where they are not made of norms."""
        known = self._norms[site.facts["site"]]
        dim = known.channel_dim(len(site.shape))
        parts = tuple(source_of(term, dim, self._norms) for term in terms)
        if not parts:
            return None, None
        whole = Source("sum", parts=parts)
        return self._remembered.get(("skip", site.facts["site"]), whole, partial(self._both, whole))

    def _both(self, whole: Source) -> tuple[Array | None, Array | None]:
        now, initially = self._points(whole, False), self._points(whole, True)
        if now is None or initially is None:
            return None, None
        return now.var(axis=1), initially.var(axis=1)

    def _points(self, source: Source, initially: bool) -> Array | None:
        """Equally likely values of every channel, (C, N_POINTS); None where the source is not known."""
        key = (source.key, initially)
        if key not in self._known:
            made = None if source.pool else self._made(source, initially)
            self._known[key] = None if made is None else activated(made, source.activation)
        return self._known[key]

    def _made(self, source: Source, initially: bool) -> Array | None:
        """Before the activation."""
        if source.what == "norm":
            return _of_norm(source, initially and bool(source.site))
        parts = [self._points(part, initially) for part in source.parts]
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        if source.what == "concat":
            return np.concatenate(known)
        total = known[0]
        for part in known[1:]:
            total = added(total, part)
        return total


def _of_norm(source: Source, initially: bool) -> Array:
    n = source.n_channels
    z = np.array(QUANTILES)
    z = z / z.std()
    if initially:
        return _of_all(z[None], n)
    gamma = np.ones(n) if source.gamma is None else np.abs(source.gamma)
    beta = np.zeros(n) if source.beta is None else source.beta
    points: Array = beta[:, None] + gamma[:, None] * z
    return points


def _of_all(row: Array, n: int) -> Array:
    """One row (1, N_POINTS) for all of `n` channels, without a copy: what is done to it is done once."""
    return np.broadcast_to(row, (n, row.shape[1]))


def _is_of_all(points: Array) -> bool:
    return points.strides[0] == 0


def added(a: Array, b: Array) -> Array:
    """The sum of independent values: all pairs in order, then the means of N_POINTS equal groups.

    Grouping takes out some variance, which is put back.
    """
    if _is_of_all(a) and _is_of_all(b):
        return _of_all(added(a[:1].copy(), b[:1].copy()), len(a))
    pairs = np.sort((a[:, :, None] + b[:, None, :]).reshape(len(a), N_POINTS * N_POINTS), axis=1)
    points = pairs.reshape(len(a), N_POINTS, N_POINTS).mean(axis=2)
    mean, spread = points.mean(axis=1, keepdims=True), points.std(axis=1, keepdims=True)
    real = np.sqrt(a.var(axis=1, keepdims=True) + b.var(axis=1, keepdims=True))
    grown: Array = mean + (points - mean) * real / np.where(spread > 0, spread, 1.0)
    return grown


def activated(points: Array, name: str) -> Array | None:
    """The values after an activation by the name that torch gives it, as "leaky_relu(0.2)"; None where there is none."""
    if name == "none":
        return points
    if _is_of_all(points):
        row = activated(points[:1].copy(), name)
        return None if row is None else _of_all(row, len(points))
    called, _, numbers = name.removesuffix(")").partition("(")
    function = getattr(torch.nn.functional, called, None)
    if function is None or called in ("softmax", "log_softmax", "glu", "prelu", "rrelu"):
        return None
    values = [float(number) for number in numbers.split(",") if number]
    with torch.no_grad():
        return np.array(function(torch.from_numpy(points.copy()), *values).numpy())
