"""What is a normalization layer, what it pools over, and how to read it.

A layer is described by a `NormLayer`: an inert plan that the probe applies. Where a class alone does
not settle the meaning (does this RMSNorm multiply by w or by 1 + w? are the channels first or last?),
`describe` returns several plans, and the probe keeps the first that reproduces the real output.

Lookup, most specific first: classes given to `register_norm`, by the method resolution order; torch's
own classes and their subclasses; then classes that only look like a norm by name and attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedParameter

from bnprobe.errors import BnprobeError
from bnprobe.recording import BATCH, CHANNELS, GROUP, INSTANCE, POOLS

FIRST, LAST = "first", "last"


@dataclass(frozen=True)
class NormLayer:
    """How one normalization layer reads its input: y = gamma * (x - mean) / sqrt(var + eps) + beta.

    `pools` says over what mean and var are taken: "batch" (per channel, over samples and positions),
    "instance" (per sample and channel), "group" (per sample and group of channels) or "channels" (over
    all channels at each position: layer and RMS norm). With `uses_running` the stored `running_mean`
    and `running_var` take their place. Channels are dimension 1 (`channels="first"`) or the last
    `n_channel_dims` dimensions (`channels="last"`). `centred=False` leaves out the mean, and then
    var is the mean square (RMSNorm). gamma is `weight + weight_offset`, each tensor of n_channels
    entries in any shape, or None.
    """

    kind: str
    pools: str
    n_channels: int
    eps: float
    channels: str = FIRST
    n_channel_dims: int = 1
    n_groups: int = 1
    weight: Tensor | None = None
    weight_offset: float = 0.0
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    momentum: float | None = None
    n_batches_tracked: Tensor | None = None
    uses_running: bool = False
    centred: bool = True
    unbatched_dims: int | None = None

    def __post_init__(self) -> None:
        if self.pools not in POOLS:
            raise BnprobeError(f"pools={self.pools!r} is not known. Use one of {', '.join(POOLS)}.")
        if self.channels not in (FIRST, LAST):
            raise BnprobeError(f"channels={self.channels!r} is not known. Use {FIRST!r} or {LAST!r}.")
        if self.uses_running and (self.running_mean is None or self.running_var is None):
            raise BnprobeError(
                "uses_running needs running_mean and running_var. Give both, or uses_running=False."
            )
        if self.n_groups < 1 or self.n_channels % self.n_groups:
            raise BnprobeError(f"{self.n_channels} channels do not fall into {self.n_groups} groups.")

    def fits(self, x: Tensor) -> bool:
        """Whether a tensor of this shape can be the input."""
        if self.channels == FIRST:
            if x.dim() == self.unbatched_dims:
                return x.shape[0] == self.n_channels
            return x.dim() >= 2 and x.shape[1] == self.n_channels
        return (
            x.dim() >= self.n_channel_dims
            and x.shape[x.dim() - self.n_channel_dims :].numel() == self.n_channels
        )

    def rows(self, x: Tensor) -> Tensor:
        """The input as (N samples, C channels, P positions); a view for the common layouts.

        The first dimension is taken for the sample, where there is one before the channels.
        """
        if self.channels == FIRST:
            batch = x.unsqueeze(0) if x.dim() == self.unbatched_dims else x
            return (
                batch.reshape(batch.shape[0], self.n_channels, -1) if batch.numel() else _no_rows(batch, self)
            )
        lead = x.shape[: x.dim() - self.n_channel_dims]
        n = lead[0] if lead else 1
        if not x.numel():
            return _no_rows(x, self)
        return x.reshape(n, lead[1:].numel(), self.n_channels).transpose(1, 2)


def _no_rows(x: Tensor, layer: NormLayer) -> Tensor:
    return x.new_zeros((0, layer.n_channels, 1))


Describe = Callable[[nn.Module], NormLayer]
_registered: dict[type, Describe] = {}
"""Classes taught by `register_norm`. The most derived class wins; a second call replaces the first."""


def register_norm(cls: type, describe: Describe) -> None:
    """Teach bnprobe a normalization layer.

    `describe(module)` returns a `NormLayer` and is called before every forward pass of the module, so
    it may depend on `module.training`. It also holds for subclasses of `cls`. `kind` may be a name of
    your own. The formula is compared with the real output at the first call of each site.

    Raises BnprobeError when `cls` is not a class of modules.
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise BnprobeError(
            f"register_norm needs a subclass of torch.nn.Module, got {cls!r}. Pass the class itself."
        )
    _registered[cls] = describe


def describe(module: nn.Module) -> tuple[NormLayer, ...]:
    """The plans that may fit `module`, best first; empty when it is not understood as a norm.

    A lazy layer has no channels before its first forward pass; ask `is_norm` before that.
    """
    for cls in type(module).__mro__:
        if cls in _registered:
            return (_registered[cls](module),)
    for known, plans in _KNOWN:
        if isinstance(module, known):
            return tuple(plans(module))
    return tuple(_look_alike(module))


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is understood as a normalization layer."""
    if any(issubclass(type(module), lazy) for lazy in _LAZY):
        return True  # it has no channels to describe before its first forward pass
    return bool(describe(module))


def is_torchs_own(module: nn.Module) -> bool:
    """Whether `module` is of one of torch's own classes, and nobody has taught it to be another thing."""
    cls = type(module)
    return cls in _TORCHS_OWN and cls not in _registered


def looks_like_norm(module: nn.Module) -> bool:
    """Whether a module that is not understood should be named to the user.

    By its class name. Left out are wrappers around a norm that is understood, blocks that hold a
    convolution or a linear layer, and the parametrizations that normalize weights, not activations.
    """
    name = type(module).__name__.lower()
    if "norm" not in name or any(word in name for word in ("weightnorm", "spectralnorm", "weight_norm")):
        return False
    if has_matrix(module):
        return False
    return not any(is_norm(inner) for inner in module.modules())


def folded_away(model: nn.Module) -> tuple[str, ...]:
    """Places where a norm was folded into the convolution before it, by what folding leaves: `nn.Identity`.

    Behind a convolution that has a bias by now, as `torch.ao.quantization.fuse_modules` and most hand-written
    fusions leave it; with the name of a norm, or an index in a Sequential. An identity elsewhere is a choice
    of the architecture.
    """
    found = []
    for path, parent in model.named_modules():
        children = list(parent.named_children())
        for (_, before), (name, child) in pairwise(children):
            named = name.isdigit() or any(word in name.lower() for word in ("bn", "norm"))
            if type(child) is nn.Identity and named and _is_convolution_with_bias(before):
                found.append(f"{path}.{name}".lstrip("."))
    return tuple(found)


def _is_convolution_with_bias(module: nn.Module) -> bool:
    """A convolution, or a fused sequence that begins with one."""
    first = next(module.children(), None) if isinstance(module, nn.Sequential) else module
    return isinstance(first, _ConvNd) and first.bias is not None


def has_matrix(module: nn.Module) -> bool:
    """Whether a parameter of the module, or of one inside it, mixes channels."""
    return any(_is_matrix(parameter) for parameter in module.parameters())


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter mixes channels, as the weight of a convolution or a linear layer does."""
    if isinstance(parameter, UninitializedParameter):
        return True
    return parameter.numel() != max(parameter.shape, default=1)


def _affine(module: nn.Module) -> dict[str, Any]:
    return {"weight": _tensor(module, "weight"), "bias": _tensor(module, "bias")}


def _tensor(module: nn.Module, *names: str) -> Tensor | None:
    """The first of these attributes that is a tensor."""
    for name in names:
        value = getattr(module, name, None)
        if isinstance(value, Tensor):
            return value
    return None


def _eps(module: nn.Module, default: float | None = None) -> float | None:
    for name in ("eps", "epsilon", "variance_epsilon", "norm_eps"):
        value = getattr(module, name, None)
        if isinstance(value, float | int) and not isinstance(value, bool):
            return float(value)
    return default


def _batch_norm(module: nn.Module) -> Iterator[NormLayer]:
    """Covers BatchNorm1d/2d/3d, SyncBatchNorm, the lazy ones, and what merely carries the same attributes."""
    mean, var = _tensor(module, "running_mean"), _tensor(module, "running_var")
    stored = mean is not None and var is not None
    weight = _tensor(module, "weight")
    known = mean if stored else weight
    momentum = getattr(module, "momentum", None)
    n_channels = known.numel() if known is not None else int(getattr(module, "num_features", 0))
    plan = NormLayer(
        kind="batch_norm",
        pools=BATCH,
        n_channels=n_channels,
        eps=_eps(module, 1e-5) or 0.0,
        running_mean=mean,
        running_var=var,
        momentum=float(momentum) if isinstance(momentum, float | int) else None,
        n_batches_tracked=_tensor(module, "num_batches_tracked"),
        uses_running=stored and not module.training,
        **_affine(module),
    )
    yield plan
    if stored and type(module).__module__.partition(".")[0] != "torch":
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


_KNOWN: tuple[tuple[type, Callable[..., Iterator[NormLayer]]], ...] = (
    (_BatchNorm, _batch_norm),
    (_InstanceNorm, _instance_norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _rms_norm),
)


_TORCHS_OWN = {
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


_LAZY = (
    nn.LazyBatchNorm1d,
    nn.LazyBatchNorm2d,
    nn.LazyBatchNorm3d,
    nn.LazyInstanceNorm1d,
    nn.LazyInstanceNorm2d,
    nn.LazyInstanceNorm3d,
)


def _look_alike(module: nn.Module) -> Iterator[NormLayer]:
    """Plans for classes that are norms by name and attributes only."""
    name = type(module).__name__.lower()
    if _tensor(module, "running_mean") is not None and _tensor(module, "running_var") is not None:
        # torchvision's and detectron2's FrozenBatchNorm2d keep four buffers and never use the batch
        plans = list(_batch_norm(module))
        yield from reversed(plans) if "frozen" in name and module.training else plans
        return
    weight = _tensor(module, "weight", "gamma", "scale", "g")
    eps = _eps(module)
    if "norm" not in name or weight is None or eps is None or any(module.children()):
        return
    bias = _tensor(module, "bias", "beta")
    n_groups = getattr(module, "num_groups", None)
    if "group" in name and isinstance(n_groups, int):
        yield NormLayer("group_norm", GROUP, weight.numel(), eps, n_groups=n_groups, weight=weight, bias=bias)
    elif "rms" in name or "layer" in name:
        rms = NormLayer(
            "rms_norm", CHANNELS, weight.numel(), eps, channels=LAST, weight=weight, bias=bias, centred=False
        )
        layer = replace(rms, kind="layer_norm", centred=True)
        for plan in (rms, layer) if "rms" in name else (layer, rms):
            # the Gemma family keeps w - 1 in its weight
            for offset in (0.0, 1.0):
                yield replace(plan, weight_offset=offset)
                yield replace(plan, weight_offset=offset, channels=FIRST)
