"""torch's own normalization layers, described: batch, instance, group, layer and RMS norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from bnprobe.norms.classes import home
from bnprobe.norms.layer import FIRST, LAST, NormLayer
from bnprobe.recording import BATCH, CHANNELS, GROUP, INSTANCE


def _affine(module: nn.Module) -> dict[str, Any]:
    return {"weight": tensor_of(module, "weight"), "bias": tensor_of(module, "bias")}


def tensor_of(module: nn.Module, *names: str) -> Tensor | None:
    """The first of these attributes that is a tensor."""
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            return value
    return None


def eps_of(module: nn.Module, default: float | None = None) -> float | None:
    """The eps of a module under the names that classes give it, or `default`."""
    for name in ("eps", "epsilon", "variance_epsilon", "norm_eps"):
        value = getattr(module, name, None)
        if isinstance(value, float | int) and not isinstance(value, bool):
            return float(value)
    return default


def batch_norm(module: nn.Module) -> Iterator[NormLayer]:
    """Covers BatchNorm1d/2d/3d, SyncBatchNorm, the lazy ones, and what merely carries the same attributes."""
    mean, var = tensor_of(module, "running_mean"), tensor_of(module, "running_var")
    stored = mean is not None and var is not None
    weight = tensor_of(module, "weight")
    known = mean if stored else weight
    momentum = getattr(module, "momentum", None)
    n_channels = known.numel() if known is not None else int(getattr(module, "num_features", 0))
    plan = NormLayer(
        kind="batch_norm",
        pools=BATCH,
        n_channels=n_channels,
        eps=eps_of(module, 1e-5) or 0.0,
        running_mean=mean,
        running_var=var,
        momentum=float(momentum) if isinstance(momentum, float | int) else None,
        n_batches_tracked=tensor_of(module, "num_batches_tracked"),
        uses_running=stored and not module.training,
        **_affine(module),
    )
    yield plan
    if stored and home(type(module)).partition(".")[0] != "torch":
        yield replace(plan, uses_running=not plan.uses_running)  # frozen in a way of its own, or never so


def _instance_norm(module: _InstanceNorm) -> Iterator[NormLayer]:
    stored = module.track_running_stats and not module.training and module.running_mean is not None
    weight = module.weight
    yield NormLayer(
        kind="instance_norm",
        pools=INSTANCE,
        n_channels=weight.numel() if weight is not None else module.num_features,
        eps=float(module.eps),
        running_mean=module.running_mean,
        running_var=module.running_var,
        momentum=module.momentum,
        n_batches_tracked=module.num_batches_tracked,
        uses_running=stored,
        unbatched_dims=_unbatched_dims(module),
        **_affine(module),
    )


def _unbatched_dims(module: nn.Module) -> int | None:
    """Dimensions of an input without a batch dimension, which torch's instance norms also take."""
    ask = getattr(module, "_get_no_batch_dim", None)
    return int(ask()) if ask is not None else None


def _group_norm(module: nn.GroupNorm) -> Iterator[NormLayer]:
    yield NormLayer(
        kind="group_norm",
        pools=GROUP,
        n_channels=module.num_channels,
        n_groups=module.num_groups,
        eps=float(module.eps),
        **_affine(module),
    )


def _layer_norm(module: nn.LayerNorm) -> Iterator[NormLayer]:
    """Channels last; subclasses of one normalized dimension may permute, as torchvision's LayerNorm2d does."""
    plan = NormLayer(
        kind="layer_norm",
        pools=CHANNELS,
        n_channels=torch.Size(module.normalized_shape).numel(),
        channels=LAST,
        n_channel_dims=len(module.normalized_shape),
        eps=float(module.eps),
        **_affine(module),
    )
    yield plan
    if type(module) is not nn.LayerNorm and plan.n_channel_dims == 1:
        yield replace(plan, channels=FIRST)


def _rms_norm(module: nn.RMSNorm) -> Iterator[NormLayer]:
    # without an eps torch takes the machine epsilon of the input, whose type is the weight's as a rule
    dtype = torch.get_default_dtype() if module.weight is None else module.weight.dtype
    yield NormLayer(
        kind="rms_norm",
        pools=CHANNELS,
        n_channels=torch.Size(module.normalized_shape).numel(),
        channels=LAST,
        n_channel_dims=len(module.normalized_shape),
        eps=torch.finfo(dtype).eps if module.eps is None else float(module.eps),
        centred=False,
        **_affine(module),
    )


KNOWN: tuple[tuple[type, Callable[..., Iterator[NormLayer]]], ...] = (
    (_BatchNorm, batch_norm),
    (_InstanceNorm, _instance_norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _rms_norm),
)


TORCHS_OWN = {
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
}
"""The classes themselves, without subclasses: what these compute is known, while a subclass may do more or otherwise."""
