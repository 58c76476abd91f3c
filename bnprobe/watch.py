"""Whether a layer is still what it was at its last call: asked before every call, so it must cost little.

Plans and vectors are made anew only after something has changed. Values are compared, not version
counters, because `parameter.data` can be written without a trace in those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.norms import NormLayer, describe, is_torchs_own
from bnprobe.observation import Vectors, vectors_of

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


class Watch:
    """One layer. While nothing about it changes, the same plans and the same vectors come back."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()
        self._plans: tuple[NormLayer, ...] | None = None
        self._copied: dict[float, tuple[tuple[_Memory, ...], Vectors]] = {}

    def plans(self, module: nn.Module) -> tuple[NormLayer, ...]:
        """`describe(module)`. Layers of other people's making are described anew at every call."""
        if not is_torchs_own(module):
            return describe(module)
        state = _state(module)
        if self._plans is None or tuple(map(id, state)) != tuple(map(id, self._state)):
            self._state, self._plans = state, describe(module)
        return self._plans

    def vectors(self, plan: NormLayer) -> Vectors:
        """Copies of the layer's vectors as they are now."""
        tensors = plan.weight, plan.bias, plan.running_mean, plan.running_var
        known = self._copied.get(plan.weight_offset)  # all else that plans of one layer differ in
        if known is not None and all(map(_Memory.holds, known[0], tensors)):
            return known[1]
        vectors = vectors_of(plan)
        self._copied[plan.weight_offset] = tuple(map(_Memory, tensors)), vectors
        return vectors


def _state(module: nn.Module) -> tuple[Any, ...]:
    """Everything that the plans of torch's own classes depend on, values aside."""
    own = module.__dict__
    parameters: Mapping[str, Any] = own["_parameters"]
    buffers: Mapping[str, Any] = own["_buffers"]
    tensors = [parameters.get(name, buffers.get(name)) for name in TENSORS]
    return (*tensors, *(own.get(name) for name in SETTINGS))


class _Memory:
    """The bytes of a tensor as they were, and where they lie; None is a tensor too."""

    __slots__ = ("_address", "_live", "_tensor", "_was")

    def __init__(self, tensor: Tensor | None) -> None:
        self._tensor, self._live, self._address = tensor, None, 0
        self._was = b""
        if tensor is None or tensor.device.type != "cpu" or not tensor.is_contiguous() or not tensor.numel():
            return
        self._address = tensor.data_ptr()
        self._live = tensor.detach().reshape(-1).view(torch.uint8).numpy().data
        self._was = bytes(self._live)

    def holds(self, tensor: Tensor | None) -> bool:
        """Whether `tensor` is the same one, where it was, with the same values in it."""
        if tensor is not self._tensor:
            return False
        if tensor is None:
            return True
        # the address first: memory that was given back, as sharding does, must not be looked at
        return self._live is not None and tensor.data_ptr() == self._address and self._live == self._was
