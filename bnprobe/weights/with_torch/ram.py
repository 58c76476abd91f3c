"""A tensor of torch's, in RAM, as the reader of checkpoints sees tensors; and the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy

from bnprobe.weights.stored import Stored
from bnprobe.weights.tensor import Array, Tensor
from bnprobe.weights.with_torch.kinds import foreign, is_number
from bnprobe.weights.with_torch.stored import StoredTensor


def in_ram(value: Any) -> Tensor | None:
    """A tensor of torch's as one of ours; None for anything else."""
    if type(value) is StoredTensor:
        return value.stored
    return InRam(value) if isinstance(value, torch.Tensor) else None


def as_torch(tensor: Tensor) -> torch.Tensor:
    """A tensor of a checkpoint for torch; without numbers where torch lacks its type."""
    if isinstance(tensor, InRam):
        return tensor.tensor
    dtype = getattr(torch, tensor.dtype, None) if isinstance(tensor, Stored) else None
    if not isinstance(tensor, Stored) or dtype is None:
        return torch.empty(tensor.shape, device="meta")
    return StoredTensor(tensor, dtype)


class InRam(Tensor):
    """A tensor of torch's."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.foreign = foreign(tensor)
        # of some kinds even this raises, or has torch print a warning
        self.tensor = tensor if self.foreign else torch.Tensor.detach(tensor)
        self.is_number = is_number(tensor)
        self.dtype = str(tensor.dtype).removeprefix("torch.")
        self.shape = () if self.foreign else tuple(tensor.shape)
        self.dim, self.numel = (0, 0) if is_lazy(tensor) else (tensor.dim(), tensor.numel())
        self.itemsize = 0 if self.foreign else tensor.element_size()
        self.storage = (id(self), 0) if self.foreign else _storage_of(tensor)

    def array(self) -> Array:
        """As of any tensor."""
        return _array(self.tensor)

    def rows(self, begin: int, end: int) -> Array:
        """As of any tensor."""
        return _array(self.tensor[begin:end])

    def __repr__(self) -> str:
        return f"InRam({self.tensor!r})"


def _array(tensor: torch.Tensor) -> Array:
    numbers = tensor.dequantize() if tensor.is_quantized else tensor
    if numbers.dtype.is_floating_point and numbers.dtype not in (torch.float32, torch.float64):
        numbers = numbers.float()
    found: Array = numbers.resolve_conj().resolve_neg().cpu().numpy()
    return found


def _storage_of(tensor: torch.Tensor) -> tuple[object, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
