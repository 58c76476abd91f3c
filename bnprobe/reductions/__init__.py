"""Tensors in, statistics out: the only place where every value of an activation is touched.

All functions take x as (N samples, C channels, P positions) and return numpy values of `bnprobe.stats`,
in float64; on a GPU what `read` returns stays there until someone looks at it (see `resident`).
Non-finite values are counted and left out of everything else. Nothing is kept of x.

`plain` says in torch what is meant, on any device; `cpu` does the same in compiled loops and `cuda` in
kernels on a GPU. Which of them reads a tensor is decided here and nowhere else.
"""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType

from torch import Tensor

from bnprobe.reductions import reference
from bnprobe.reductions.device_reading import DeviceReading
from bnprobe.reductions.packed import add, add_mapped, images_of, moments_of, packed
from bnprobe.reductions.reading import WHOLE, Affine, Counts, PerSample, Reading, Share, per_sample_array
from bnprobe.stats.moments import Array

__all__ = [
    "WHOLE",
    "Affine",
    "Counts",
    "DeviceReading",
    "PerSample",
    "Reading",
    "Share",
    "add",
    "add_mapped",
    "count",
    "images_of",
    "join",
    "moments_of",
    "packed",
    "per_sample_array",
    "products",
    "read",
]


def read(
    x: Tensor,
    *,
    origin: Array | None = None,
    gate: Affine | None = None,
    bins: Affine | None = None,
    share: Share = WHOLE,
    own: PerSample | None = None,
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
    if gate is None and bins is None:
        return Counts()
    counts: Counts = _engine(x).count(x, gate, bins, share)
    return counts


def products(w: Tensor, g: Tensor) -> Array:
    """The lengths of the rows of w and g, both (C, K), and the sums of w * g: see `plain.products`."""
    found: Array = _engine(w).products(w, g)
    return found


def join(total: DeviceReading, new: DeviceReading) -> None:
    """Add a reading to another one like it, in place, on the device where they are."""
    engine = fused()
    assert engine is not None, "only kernels leave a reading where it is"
    engine.join(total, new)


def _engine(x: Tensor) -> ModuleType:
    find = ENGINES.get(x.device.type)
    engine = find() if find is not None else None
    return engine if engine is not None and engine.can_read(x) else reference


@cache
def compiled() -> ModuleType | None:
    """The compiled loops; None where numba is missing or switched off. Looked for at the first read."""
    try:
        from numba import config

        from bnprobe.reductions.cpu import engine
    except ImportError:
        return None
    return None if config.DISABLE_JIT else engine


@cache
def fused() -> ModuleType | None:
    """The kernels for GPUs; None where triton is missing or cannot run. Looked for at the first read."""
    try:
        from bnprobe.reductions.gpu import engine
    except ImportError:
        return None
    try:
        engine.rehearse()
    except Exception as fault:
        # a GPU that is too old, no C compiler: whatever it is, the twin can do without
        warnings.warn(
            f"triton cannot run here ({type(fault).__name__}: {fault}): tensors on the GPU are read "
            "with plain torch, which takes several times as long.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return engine


ENGINES = {"cpu": compiled, "cuda": fused}
"""Where to look for the fast way, by type of device."""
