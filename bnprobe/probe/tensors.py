"""What hooks receive: tensors in containers, and the circumstances of a call."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from bnprobe.errors import BnprobeError, said


def first_tensor(args: Any, kwargs: Any = None) -> Tensor | None:
    """The first tensor in nested containers."""
    first = args[0] if type(args) is tuple and args else args
    return first if isinstance(first, Tensor) else next(tensors_in((args, kwargs)), None)


def n_samples(args: tuple[Any, ...], first: Tensor, dim: int) -> int:
    """Samples of a call of the whole model: dimension `dim` of its first tensor, or the images of a list.

    Raises BnprobeError where the tensor has no such dimension.

    Detectors take a list of images (C, H, W) of unequal size, with 1, 3 or 4 channels. A nested tensor is a list of samples,
    and has no other size.
    """
    if first.is_nested:
        return first.size(0)
    items = args[0] if args and isinstance(args[0], list) else []
    images = (isinstance(item, Tensor) and item.dim() == 3 and item.shape[0] in (1, 3, 4) for item in items)
    if items and all(images):
        return len(items)
    if dim and first.dim() <= dim:
        raise BnprobeError(
            f"sample_dim={dim}, but the model was called with a tensor of shape {tuple(first.shape)}. Pass the number of "
            "the dimension that counts samples, from 0."
        )
    return first.shape[dim] if first.dim() else 1


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Tensors in nested containers, in order; none of a container whose own code fails, or that holds itself."""
    if isinstance(value, Tensor):
        yield value
        return
    try:
        inside = (
            value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
        )
        for item in inside:
            yield from tensors_in(item)
    except Exception:  # whoever takes the tensors does so outside
        return


def held_here(x: Any) -> Any:
    """The part of a tensor that this process holds, where its values are spread over several (DTensor); anything else as it
    is. The wrapper itself has no storage: reading it would end Python.

    Of a sum that is still spread (a partial placement) it is this process's summand.
    """
    if type(x) is Tensor or type(x) is nn.Parameter:
        return x
    local = getattr(x, "_local_tensor", x)  # not to_local(), an operation that autograd and traces would see
    return local.trigger_wait() if hasattr(local, "trigger_wait") else local


def is_partial(x: Tensor) -> bool:
    """Whether processes hold summands of it, and none its values."""
    return any(placement.is_partial() for placement in getattr(x, "placements", ()))


def is_block(x: Tensor) -> bool:
    """Whether it has one shape and its numbers one after another: neither sparse, nor nested, nor without values."""
    return x.layout == torch.strided and not (x.is_meta or x.is_nested)


def has_values(x: Tensor) -> bool:
    """Whether it is a plain floating-point tensor, outside transforms of torch.func (vmap, grad)."""
    return x.is_floating_point() and not (x.is_meta or x.is_nested or is_transformed() or is_partial(x))


def why_no_values(x: Tensor | None) -> str:
    """What keeps an input without `has_values` from being read, in words."""
    if is_transformed():
        return "the model ran inside a torch.func transform such as vmap or grad, where tensors hold no values of their own"
    if x is not None and x.is_meta:
        return "the model and its inputs are on the meta device, where tensors hold no values"
    if x is not None and is_partial(x):
        return "the input was spread over processes as a sum, of which each holds a summand"
    if x is not None and x.is_nested:
        return (
            "the input was a nested tensor (torch.nn.TransformerEncoder makes these of padded batches in eval mode, unless "
            "torch.backends.mha.set_fastpath_enabled(False) is called before)"
        )
    return "the input was not a floating-point tensor"


def unreadable(layer: str, error: Exception) -> Exception:
    """What to raise where a call of a layer could not be read: an error that names it, unless RAM ran out."""
    if isinstance(error, BnprobeError | MemoryError | torch.OutOfMemoryError):
        return error
    return BnprobeError(
        f"{layer}: what it is called with, returns or holds cannot be read ({said(error)}). Leave it out with "
        "attach(model, layers=...), or give it plain tensors of as many numbers as it has channels."
    )


def is_transformed() -> bool:
    """Whether a transform of torch.func is running, in which tensors have no values of their own."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def is_recomputation() -> bool:
    """Whether gradient checkpointing is recomputing a forward pass inside a backward pass."""
    return bool(torch._C._current_graph_task_id() != -1)


def calls_on_stack(module: nn.Module) -> int:
    """How many calls of `module` are running in this thread.

    torch's hooks cannot tell a model that calls itself from one whose last pass was interrupted
    (KeyboardInterrupt passes the always-called hooks by), and the second must not count as nested.
    """
    frame: FrameType | None = sys._getframe()
    n = 0
    while frame is not None:
        n += frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is module
        frame = frame.f_back
    return n


def is_lazy(parameter: Tensor) -> bool:
    """Whether a parameter has no shape before its first forward pass."""
    return isinstance(parameter, UninitializedParameter)


def device_name(x: Tensor) -> str:
    """The name of a tensor's device for the report."""
    if x.is_cuda:
        return torch.cuda.get_device_name(x.device)
    n = torch.get_num_threads()
    return f"{x.device.type}, {n} thread{'s' if n > 1 else ''}"
