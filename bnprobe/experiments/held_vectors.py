"""The vectors that the norms of a model hold: mean, variance, weight and bias, found where a pass has seen them used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name
from bnprobe.experiments.feature_scales import is_feature_norm
from bnprobe.experiments.mixing import Statistics, pooled
from bnprobe.norms import ModuleTree, NormLayer, describe
from bnprobe.norms.module_tree import buffers_of, parameters_of
from bnprobe.probe.calls.vectors import vector_of
from bnprobe.probe.survey.unwrap import shown, unwrap
from bnprobe.probe.tensors import is_lazy
from bnprobe.recording import Recording
from bnprobe.recording.layer_record import LayerRecord
from bnprobe.reductions import float64_copy
from bnprobe.stats.moments import Array

VECTORS = ("mean", "var", "weight", "bias")


@dataclass(frozen=True)
class HeldNorm:
    """A norm of the model, and what a pass saw of it.

    `tensors` are its vectors by name, only those that it uses; `names` what they are called in its state dict.
    """

    path: str
    module: nn.Module
    layer: NormLayer
    tensors: Mapping[str, Tensor]
    names: Mapping[str, str]
    records: list[LayerRecord]

    @cached_property
    def values(self) -> dict[str, Array]:
        """Copies of its vectors, float64 of shape (C,); the weight is γ, also where the module multiplies by 1 + w."""
        return {
            name: float64_copy(whole(tensor)) + self.offset(name) for name, tensor in self.tensors.items()
        }

    @cached_property
    def seen(self) -> Statistics:
        """Statistics of everything that it was given."""
        return pooled(self.records)

    def as_tensor(self, vector: str, values: Array) -> Tensor:
        """New values for a vector, as its tensor holds them: shape, type and device, and w for 1 + w."""
        own = self.tensors[vector]
        made = torch.from_numpy(np.ascontiguousarray(values - self.offset(vector)))
        made = made.reshape(own.shape).to(own.device, own.dtype)
        if not hasattr(own, "full_tensor"):
            return made
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(made, own.device_mesh, own.placements)  # type: ignore[attr-defined]

    def offset(self, vector: str) -> float:
        """What is added to the tensor of a vector."""
        return self.layer.weight_offset if vector == "weight" else 0.0


def held_norms(model: nn.Module, recording: Recording) -> dict[str, HeldNorm]:
    """The recorded norms that hold vectors, or compute a scale for each token, by path in the order of execution.

    The model is in eval mode.

    A mean and a variance are only used where the pass normalized with them. A vector that a module computes at each
    call, from what it holds, cannot be replaced and is left out; so are norms that are functions.
    """
    tree = ModuleTree.of(unwrap(model)[0])
    modules = {shown(path) or class_name(tree.model): module for path, module in tree.modules.items()}
    held = {storage(tensor) for module in tree.modules.values() for _, tensor in tensors_of(module)}
    records: dict[str, list[LayerRecord]] = {}
    for record in recording.layers:
        if record.pre.n.any():
            records.setdefault(record.layer, []).append(record)
    found = {}
    for path, seen in records.items():
        layer = _as_recorded(modules[path], seen[0]) if path in modules else None
        if layer is None:
            continue
        stored = layer if layer.uses_running else replace(layer, running_mean=None, running_var=None)
        vectors = (stored.running_mean, stored.running_var, stored.weight, stored.bias)
        tensors = {
            name: tensor
            for name, tensor in zip(VECTORS, vectors, strict=True)
            if tensor is not None and storage(tensor) in held
        }
        own = {storage(tensor): name for name, tensor in tensors_of(modules[path])}
        names = {vector: own.get(storage(tensor), "") for vector, tensor in tensors.items()}
        if tensors or is_feature_norm(layer):
            found[path] = HeldNorm(path, modules[path], layer, tensors, names, seen)
    return found


def storage(tensor: Tensor) -> int:
    """Where a tensor's values, or this process's part of them, lie: the same for all that share them."""
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return own.untyped_storage().data_ptr()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that is sharded over processes (FSDP2) as one; all of them ask for it."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers with values that one module holds itself, by name."""
    every = (*parameters_of(module), *buffers_of(module))
    return ((name, t) for name, t in every if not is_lazy(t) and t.device.type != "meta")


def _as_recorded(module: nn.Module, record: LayerRecord) -> NormLayer | None:
    """Of the plans that may fit a module, the one by which the pass has read it; None where there is none."""
    plans = [plan for plan in describe(module) if plan.n_channels == record.n_channels]
    for plan in plans:
        weight = None if plan.weight is None else whole(plan.weight)
        gamma = vector_of(weight, plan.weight_offset)
        same = gamma is None or record.gamma is None or np.array_equal(gamma, record.gamma, equal_nan=True)
        if same and plan.uses_running == bool(record.n_calls_running):
            return plan
    return None


def demand_one_device(model: nn.Module) -> None:
    """Raises BnprobeError where the model is spread over several devices."""
    tree = ModuleTree.of(model)
    devices = sorted({str(t.device) for t in (*tree.parameters().values(), *tree.buffers().values())})
    if len(devices) > 1:
        raise BnprobeError(
            f"the model is spread over {', '.join(devices)}, and batches can be moved to one device only. Move the whole "
            "model to one of them."
        )
