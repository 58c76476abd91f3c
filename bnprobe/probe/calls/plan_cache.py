"""Whether a layer is still what it was at its last call: asked before every call, so it must cost little.

Plans and vectors are made anew only after something has changed. Values are compared, not version
counters, because `parameter.data` can be written without a trace in those. On a GPU that would be to wait
for it at every call, so there the counters must do: what is written through `.data` while the probe is
attached is noticed when the recording is read, which says that parameters moved.
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
from bnprobe.probe.calls.call_log import count_of
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
    """One layer. While nothing about it changes, the same plans and the same vectors come back."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()
        self._plans: tuple[NormLayer, ...] | None = None
        self._copied: dict[float, tuple[tuple[_Copy, ...], Vectors]] = {}
        self.counted_at_first: int | None = None
        """num_batches_tracked before the layer's first call; None where it is not kept."""

    def plans(self, module: nn.Module) -> tuple[NormLayer, ...]:
        """`describe(module)`. Layers of other people's making are described anew at every call."""
        if not is_torchs_own(module):
            return describe(module)
        state = _state(module)
        if self._plans is None or not all(map(is_, state, self._state)):
            self._state, self._plans = state, describe(module)
        return self._plans

    def begins(self, plan: NormLayer) -> None:
        """Before the layer's first call: remember how many batches it had counted."""
        self.counted_at_first = count_of(plan)

    def vectors(self, plan: NormLayer) -> Vectors:
        """Copies of the layer's vectors as they are now; of running statistics not in use, as they were once."""
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
            else:  # a training layer moves them at every call, and nothing of the call depends on them
                gamma, beta = map(_Copy.of, copies, tensors[:2])
                vectors = replace(vectors, gamma=gamma, beta=beta)
        self._copied[offset] = copies, vectors
        return vectors


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Everything that the plans of torch's own classes depend on, values aside."""
    own = module.__dict__
    parameters: Mapping[str, Any] = own["_parameters"]
    buffers: Mapping[str, Any] = own["_buffers"]
    tensors = [parameters.get(name, buffers.get(name)) for name in TENSORS]
    return (*tensors, *(own.get(name) for name in SETTINGS))


class _Copy:
    """A tensor in float64, and the bytes that it was made of; None is a tensor too."""

    __slots__ = ("_added", "_address", "_live", "_tensor", "_vector", "_was")

    def __init__(self, added: float = 0.0) -> None:
        self._added = added
        self._tensor: Tensor | None = None
        self._vector: Array | None = None
        self._address, self._was = 0, b""
        self._live: memoryview | _Version = memoryview(b"")

    def holds(self, tensor: Tensor | None) -> bool:
        """Whether `tensor` is the same one, where it was, with the same values in it."""
        if tensor is None or tensor is not self._tensor:
            return tensor is self._tensor
        # the address first: memory that was given back, as sharding does, must not be looked at
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
        """Have the bytes of a tensor at hand, where it is one whose bytes can be had."""
        self._tensor, self._address, self._live = tensor, 0, memoryview(b"")
        if tensor is not None and tensor.is_cuda and not tensor.is_inference():
            self._address, self._live = tensor.data_ptr(), _Version(tensor)
        if tensor is None or tensor.device.type != "cpu" or not tensor.is_contiguous():
            return
        self._address = tensor.data_ptr()
        # not through numpy: a tensor that was ever seen as an array can no longer be resized
        at_hand = (ctypes.c_char * tensor.nbytes).from_address(self._address)
        self._live = memoryview(at_hand).cast("B")


class _Version:
    """How often a tensor has been written, where bytes would have to be waited for; used like its bytes."""

    __slots__ = ("_tensor",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __bytes__(self) -> bytes:
        return str(self._tensor._version).encode()

    def __eq__(self, other: object) -> bool:
        return bytes(self) == other
