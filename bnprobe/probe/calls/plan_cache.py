"""Whether a layer has changed since its last call: checked before every call, so it must be cheap.

Plans and vectors are made again only after a change. Values are compared, not version counters, which miss writes
through `parameter.data`. On a GPU comparing values would mean waiting for it at every call, so there the counters are
used: a write through `.data` while the probe is attached shows only in the recording, as parameters that moved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from operator import is_
from typing import Any

from torch import Tensor, nn

from bnprobe.norms import NormLayer, describe, is_torchs_own
from bnprobe.probe.calls import Vectors, vector_of
from bnprobe.probe.tensors import held_here
from bnprobe.stats.moments import Array

TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SETTINGS = (
    "training",
    "eps",
    "momentum",
    "track_running_stats",
    "num_groups",
    "num_channels",
    "normalized_shape",
)


class PlanCache:
    """The plans and vectors of one layer: the same objects for as long as nothing about it changes."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()
        self._plans: tuple[NormLayer, ...] | None = None
        self._copied: dict[float, tuple[tuple[_Copy, ...], Vectors]] = {}

    def plans(self, module: nn.Module) -> tuple[NormLayer, ...]:
        """`describe(module)`. Layers that are not torch's own are described at every call."""
        if not is_torchs_own(module):
            return describe(module)
        state = _state(module)
        if self._plans is None or not all(map(is_, state, self._state)):
            self._state, self._plans = state, describe(module)
        return self._plans

    def vectors(self, plan: NormLayer) -> Vectors:
        """Copies of the layer's vectors as they are now; running statistics that are not in use may be older."""
        tensors = plan.weight, plan.bias, plan.running_mean, plan.running_var
        # plans of one layer may differ in what they add to gamma, and else only in how they use the vectors
        offset = plan.weight_offset
        known = self._copied.get(offset)
        if known is None:
            copies: tuple[_Copy, ...] = (_Copy(offset), _Copy(), _Copy(), _Copy())
            vectors = Vectors(*map(_Copy.of, copies, tensors))
        else:
            copies, vectors = known
            if all(map(_Copy.holds, copies, tensors if plan.uses_running else tensors[:2])):
                return vectors
            if plan.uses_running:
                vectors = Vectors(*map(_Copy.of, copies, tensors))
            else:  # in training they move at every call, and nothing in the call depends on them
                gamma, beta = map(_Copy.of, copies, tensors[:2])
                vectors = replace(vectors, gamma=gamma, beta=beta)
        self._copied[offset] = copies, vectors
        return vectors


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Everything that the plans of torch's own classes depend on, except values."""
    own = module.__dict__
    parameters: Mapping[str, Any] = own["_parameters"]
    buffers: Mapping[str, Any] = own["_buffers"]
    tensors = [parameters.get(name, buffers.get(name)) for name in TENSORS]
    return (*tensors, *(own.get(name) for name in SETTINGS))


class _Copy:
    """A copy of a tensor in float64, and the bytes it was made from; the tensor may be None."""

    __slots__ = ("_added", "_address", "_live", "_tensor", "_vector", "_was")

    def __init__(self, added: float = 0.0) -> None:
        self._added = added
        self._tensor: Tensor | None = None
        self._vector: Array | None = None
        self._address, self._was = 0, b""
        self._live: memoryview | _Version = memoryview(b"")

    def holds(self, tensor: Tensor | None) -> bool:
        """Whether it is the same tensor, at the same address, with the same values."""
        if tensor is None or tensor is not self._tensor:
            return tensor is self._tensor
        # the address first: storage that was freed, as in sharding, must not be read
        return self._address != 0 and tensor.data_ptr() == self._address and self._live == self._was

    def of(self, tensor: Tensor | None) -> Array | None:
        """The vector; the same array as before while the tensor has not changed."""
        if not self.holds(tensor):
            if tensor is None or tensor is not self._tensor or tensor.data_ptr() != self._address:
                self._look_at(tensor)
            self._was = bytes(self._live)
            self._vector = vector_of(tensor, self._added)
        return self._vector

    def _look_at(self, tensor: Tensor | None) -> None:
        """Keep a view of the bytes of a tensor, if they can be read."""
        self._tensor, self._address, self._live = tensor, 0, memoryview(b"")
        if tensor is not None and tensor.is_cuda and not tensor.is_inference():
            self._address, self._live = tensor.data_ptr(), _Version(tensor)
        if tensor is None or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return
        if held_here(tensor) is not tensor:  # spread over processes: read again at every call
            return
        self._address = tensor.data_ptr()
        # not through numpy: the storage of a tensor that was once exposed as an array cannot be resized any more
        at_hand = (ctypes.c_char * tensor.nbytes).from_address(self._address)
        self._live = memoryview(at_hand).cast("B")


class _Version:
    """The version counter of a tensor on a GPU, used in place of its bytes, which would have to be waited for."""

    __slots__ = ("_tensor",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __bytes__(self) -> bytes:
        return str(self._tensor._version).encode()

    def __eq__(self, other: object) -> bool:
        return bytes(self) == other
