"""Tensors in, statistics out: the only place where every value of an activation is touched.

All functions take x as (N samples, C channels, P positions) and return numpy values of `bnprobe.stats`,
in float64. Non-finite values are counted and left out of everything else. Nothing is kept of x.

`plain` says in torch what is meant, on any device; `cpu` does the same in compiled loops. Which of
them reads a tensor is decided here and nowhere else.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from torch import Tensor

from bnprobe.condense import plain
from bnprobe.condense.packed import add, add_mapped, images_of, moments_of, packed
from bnprobe.condense.values import WHOLE, Affine, Counts, Own, Reading, Share, own_array
from bnprobe.stats.moments import Array

__all__ = [
    "WHOLE",
    "Affine",
    "Counts",
    "Own",
    "Reading",
    "Share",
    "add",
    "add_mapped",
    "count",
    "images_of",
    "moments_of",
    "own_array",
    "packed",
    "read",
]


def read(
    x: Tensor,
    *,
    origin: Array | None = None,
    gate: Affine | None = None,
    bins: Affine | None = None,
    share: Share = WHOLE,
    own: Own | None = None,
    keep_rows: bool = False,
) -> Reading:
    """Everything that one read of x, shape (N, C, P), can tell: see `plain.read`."""
    engine = _engine(x)
    reading: Reading = engine.read(
        x, origin=origin, gate=gate, bins=bins, share=share, own=own, keep_rows=keep_rows
    )
    return reading


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """Positive values of gate(x), and the histogram of bins(x): see `plain.count`."""
    counts: Counts = _engine(x).count(x, gate, bins, share)
    return counts


def _engine(x: Tensor) -> ModuleType:
    loops = compiled() if x.device.type == "cpu" else None
    return loops if loops is not None and loops.can_read(x) else plain


@cache
def compiled() -> ModuleType | None:
    """The compiled loops; None where numba is missing or switched off. Looked for at the first read."""
    try:
        from numba import config

        from bnprobe.condense import cpu
    except ImportError:
        return None
    return None if config.DISABLE_JIT else cpu
