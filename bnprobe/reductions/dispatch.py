"""Which engine reads a tensor, or adds two readings: decided here and nowhere else.

`reference` says in torch what is meant, on any device; `cpu` does the same in compiled loops and `gpu` in
kernels on a GPU. Both are looked for at the first read, and the reference does without them.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, Protocol

from torch import Tensor

from bnprobe.garbage import collector_paused
from bnprobe.reductions import packing, reference
from bnprobe.reductions.device_reading import DeviceReading, FoldRows
from bnprobe.reductions.reading import Counts, Reading
from bnprobe.reductions.request import BASIC, WHOLE, Affine, ReadRequest, Share
from bnprobe.stats.moments import Array


class Engine(Protocol):
    """A module that reads tensors; what its functions mean is said in `reference`."""

    def can_read(self, x: Tensor) -> bool:
        """Whether this tensor is one that the engine can walk over."""

    def read(self, x: Tensor, request: ReadRequest) -> Reading:
        """See `reference.read`."""

    def count(self, x: Tensor, gate: Affine | None, bins: Affine | None, share: Share) -> Counts:
        """See `reference.count`."""

    def products(self, w: Tensor, g: Tensor) -> Array:
        """See `reference.products`."""


def read(x: Tensor, request: ReadRequest = BASIC) -> Reading:
    """Everything that one read of x, shape (N, C, P), can tell: see `reference.read`."""
    return _engine(x).read(x, request)


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """Positive values of gate(x), and the histogram of bins(x): see `reference.count`."""
    if gate is None and bins is None:
        return Counts()
    return _engine(x).count(x, gate, bins, share)


def products(w: Tensor, g: Tensor) -> Array:
    """The lengths of the rows of w and g, both (C, K), and the sums of w * g: see `reference.products`."""
    return _engine(w).products(w, g)


def add(total: Array, new: Array) -> None:
    """Merge the packed reading `new` into `total`, in place: see `packing.add`."""
    (compiled() or packing).add(total, new)


def add_mapped(total: Array, new: Array, map_: Affine) -> None:
    """Merge the image of `new` under a map into `total`, in place: see `packing.add_mapped`."""
    (compiled() or packing).add_mapped(total, new, map_)


def join(total: DeviceReading | None, new: DeviceReading, fold: FoldRows | None = None) -> None:
    """Add a reading to another one like it, and its images to a fold, in place, on the device where they are."""
    engine = fused()
    assert engine is not None, "only kernels leave a reading where it is"
    engine.join(total, new, fold)


def _engine(x: Tensor) -> Engine:
    find = ENGINES.get(x.device.type)
    engine: Engine | None = find() if find is not None else None
    return engine if engine is not None and engine.can_read(x) else reference


@cache
def compiled() -> Any:
    """The compiled loops; None where numba is missing or switched off."""
    try:
        with collector_paused():
            from numba import config

            from bnprobe.reductions.cpu import engine
    except ImportError:
        return None
    return None if config.DISABLE_JIT else engine


@cache
def fused() -> Any:
    """The kernels for GPUs; None where triton is missing or cannot run."""
    try:
        from bnprobe.reductions.gpu import engine
    except ImportError:
        return None
    try:
        engine.rehearse()
    except Exception as fault:
        # a GPU that is too old, no C compiler: whatever it is, the reference can do without
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
