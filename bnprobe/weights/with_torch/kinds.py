"""Tensors that hold no numbers one can read where they are: sparse, nested, on no device, of a class of their own.

They are asked for here before anything else is asked of them, because even a shape raises for some.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from bnprobe.weights.tensor import MOST_DIMENSIONS
from bnprobe.weights.with_torch.stored import StoredTensor

_LAYOUTS = {torch._mkldnn: "an MKL-DNN tensor"}  # type: ignore[attr-defined]


def foreign(tensor: Tensor) -> str:
    """What a tensor is instead of a plain block of numbers, "a nested tensor"; empty for those that are one."""
    if is_lazy(tensor):
        return "a parameter without a shape yet"
    cls = type(tensor)
    if cls is StoredTensor:
        return ""
    if cls.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return f"a {cls.__name__}"
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.layout != torch.strided:
        return _LAYOUTS.get(tensor.layout, "a sparse tensor")
    if tensor.dim() > MOST_DIMENSIONS:
        return f"a tensor of {tensor.dim()} dimensions"
    return "a tensor without numbers (on the meta device)" if tensor.is_meta else ""


def is_number(tensor: Tensor) -> bool:
    """Whether a tensor holds real numbers that can be read, quantized ones included."""
    return not foreign(tensor) and (tensor.is_quantized or _is_real(tensor.dtype))


@lru_cache
def _is_real(dtype: torch.dtype) -> bool:
    """Whether values of this type are real numbers, and can be computed with: some types only store bits."""
    if not dtype.is_floating_point:
        return False
    try:
        torch.empty(1, dtype=dtype).to(torch.float64)
    except RuntimeError:  # NotImplementedError is one
        return False
    return True
