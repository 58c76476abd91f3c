"""Everything of a model that a probe could leave behind, and the tensors that are alive."""

from __future__ import annotations

import gc
import pickle
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.parameter import UninitializedTensorMixin


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything that a probe could have left behind, bit for bit."""
    state: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": pickle.dumps(np.random.get_state()),
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
    }
    for path, module in model.named_modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
                continue
            state[f"{path}/{name}"] = (tensor.dtype, tensor.detach().numpy().tobytes(), tensor.requires_grad)
            grad = tensor.grad
            state[f"{path}/{name}.grad"] = None if grad is None else grad.numpy().tobytes()
            state[f"{path}/{name} hooks"] = str(tensor._backward_hooks)
        state[f"{path} mode"] = module.training
        state[f"{path} keys"] = list(vars(module))
        for name in [key for key in vars(module) if "hook" in key]:
            hooks = vars(module)[name]
            state[f"{path} {name}"] = list(hooks) if isinstance(hooks, dict) else hooks
    return state


def bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return (
        (value.dtype, value.shape, value.detach().numpy().tobytes()) if isinstance(value, Tensor) else value
    )


def all_tensors() -> list[Tensor]:
    gc.collect()
    # not isinstance: asking some lazy modules for their class imports what is deprecated. What the compiler keeps of
    # earlier tests has no values (nor have lazy parameters), and to ask for its size adds to what was compiled.
    return [
        thing
        for thing in gc.get_objects()
        if issubclass(type(thing), Tensor)
        and not issubclass(type(thing), FakeTensor | UninitializedTensorMixin)
    ]


def tensors_alive() -> int:
    return len(all_tensors())
