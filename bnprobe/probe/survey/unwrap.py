"""Wrappers around a model, and models that cannot be probed."""

from __future__ import annotations

import torch
from torch import fx, nn

from bnprobe.errors import CannotProbe, class_name
from bnprobe.probe.survey.compiled import is_wrapper
from bnprobe.recording.names import spelled

INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Attributes under which wrappers hold the wrapped module; paths of layers leave them out."""


def unwrap(model: nn.Module) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    """The model inside torch.compile, DataParallel and DistributedDataParallel, which call its hooks; and the wrappers.

    Raises CannotProbe for TorchScript and exported graphs, which call no hooks.
    """
    wrappers: list[nn.Module] = []
    while (inner := _inner(model)) is not None:
        wrappers.append(model)
        model = inner
    _refuse(model)
    return model, tuple(wrappers)


def _inner(model: nn.Module) -> nn.Module | None:
    parallel: tuple[type, ...] = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner = model._orig_mod if is_wrapper(model) else model.module if isinstance(model, parallel) else None
    return inner if isinstance(inner, nn.Module) else None


def shown(path: str) -> str:
    """The path of a module without the names that wrappers insert; half a character, which no file takes, is spelled out."""
    return ".".join(part for part in spelled(path).split(".") if part not in INNER)


def _refuse(model: nn.Module) -> None:
    name = class_name(model)
    if isinstance(model, torch.jit.ScriptModule):
        name = getattr(model, "original_name", name)
        raise CannotProbe(
            f"{name} is TorchScript: its layers run outside Python, where hooks are not called. Attach to the model "
            "before scripting or tracing it, or check its weights with `bnprobe check CHECKPOINT`."
        )
    if isinstance(model, fx.GraphModule) and _has_norm_operations(model):
        raise CannotProbe(
            f"{name} is an exported graph: its norms are operators, not modules, and have no hooks. "
            "Attach to the model that was exported, or check its weights with `bnprobe check CHECKPOINT`."
        )


def _has_norm_operations(graph: fx.GraphModule) -> bool:
    """Whether norms are called as aten operators, as torch.export writes them."""
    targets = (str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return any(target.startswith("aten.") and "norm" in target for target in targets)
