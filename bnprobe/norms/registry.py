"""Which modules are normalization layers: registered ones, torch's own, and look-alikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from torch import nn

from bnprobe.errors import BnprobeError, class_name, said
from bnprobe.norms.classes import bases
from bnprobe.norms.folded import has_matrix
from bnprobe.norms.layer import Describe, NormLayer, faults
from bnprobe.norms.lookalike import look_alike
from bnprobe.norms.module_tree import ModuleTree
from bnprobe.norms.torch_norms import KNOWN, TORCHS_OWN

M = TypeVar("M", bound=nn.Module)

_registered: dict[type, Describe] = {}
"""Classes added by `register_norm`. The most derived class wins; a second call replaces the first."""


def register_norm(cls: type[M], describe: Callable[[M], NormLayer]) -> None:
    """Teach bnprobe a normalization layer of your own.

    It holds for the rest of the process and for subclasses of `cls`; the most derived class wins, and registering a
    class again replaces its description. At the first call of each layer the described formula is compared with the
    real output; if they differ, the output is measured instead and the report says so.

    Args:
        cls: The class of the layer, a subclass of `torch.nn.Module`.
        describe: Function from a module of that class to its `NormLayer`. It is called before every forward pass of
            the module, so it may depend on `module.training`.

    Raises:
        BnprobeError: `cls` is not a subclass of `torch.nn.Module`.

    Example:
        >>> import torch, bnprobe
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self, n_channels):
        ...         super().__init__()
        ...         self.gain = torch.nn.Parameter(torch.ones(n_channels))
        ...     def forward(self, x):
        ...         return self.gain * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        >>> def describe(module):
        ...     return bnprobe.NormLayer(kind="scale", pools="channels", channels="last", centred=False, eps=1e-6,
        ...                              n_channels=module.gain.numel(), weight=module.gain)
        >>> bnprobe.register_norm(Scale, describe)
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 5), Scale(5))
        >>> with bnprobe.attach(model) as probe:
        ...     output = model(torch.randn(2, 3))
        >>> bnprobe.report(probe).layers["kind"].tolist()
        ['scale']
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise BnprobeError(
            f"register_norm needs a subclass of torch.nn.Module, got {cls!r}. Pass the class itself."
        )
    _registered[cls] = cast(Describe, describe)


def describe(module: nn.Module) -> tuple[NormLayer, ...]:
    """The plans that may fit `module`, best first; empty if it is not recognized as a norm.

    A lazy layer has no channels before its first forward pass; ask `is_norm` before that.
    """
    for cls in bases(type(module)):
        if cls in _registered:
            return (_registered_plan(cls, module),)
    for known, plans in KNOWN:
        if issubclass(type(module), known):
            try:
                return _believed(module, tuple(plans(module)))
            except Exception as error:  # attributes of a subclass may be code
                raise BnprobeError(
                    f"{class_name(module)}, a {known.__name__.lstrip('_')}, does not tell its formula ({said(error)}). "
                    "Describe it with bnprobe.register_norm."
                ) from error
    try:
        return tuple(look_alike(module))
    except Exception:  # a stranger whose attributes cannot be read is none of the norms that we know
        return ()


def _believed(module: nn.Module, plans: tuple[NormLayer, ...]) -> tuple[NormLayer, ...]:
    """The plans of a known class. Raises ValueError where a subclass, which may compute otherwise, holds what fits none."""
    if type(module) not in TORCHS_OWN:
        for fault in filter(None, map(faults, plans)):
            raise ValueError(fault.replace("gave", "it holds", 1))
    return plans


def _registered_plan(cls: type, module: nn.Module) -> NormLayer:
    """What the user's `describe` says of a module, if it can be believed."""
    try:
        plan = _registered[cls](module)
    except Exception as error:
        raise BnprobeError(
            f"the describe function of {cls.__name__} failed ({said(error)}). Register one that works for every module."
        ) from error
    fault = faults(plan) if isinstance(plan, NormLayer) else f"returned {class_name(plan)}, not a NormLayer"
    if fault:
        raise BnprobeError(
            f"the describe function of {cls.__name__} {fault}. Correct it and register it again."
        )
    return plan


def is_norm(module: nn.Module) -> bool:
    """Whether `module` is recognized as a normalization layer."""
    if any(issubclass(type(module), lazy) for lazy in _LAZY):
        return True  # it has no channels to describe before its first forward pass
    return bool(describe(module))


def is_torchs_own(module: nn.Module) -> bool:
    """Whether `module` is of one of torch's own classes, which nobody has registered as something else."""
    cls = type(module)
    return cls in TORCHS_OWN and cls not in _registered


def looks_like_norm(module: nn.Module, tree: ModuleTree | None = None) -> bool:
    """Whether a module that is not recognized should be named to the user; `tree` is one that contains it.

    By its class name. Left out are wrappers around a norm that is recognized, blocks that contain a
    convolution or a linear layer, and the parametrizations that normalize weights, not activations.
    """
    name = class_name(module).lower()
    if "norm" not in name or any(word in name for word in ("weightnorm", "spectralnorm", "weight_norm")):
        return False
    inside = list((tree or ModuleTree.of(module)).inside(module))
    return not has_matrix(inside) and not any(map(is_norm, inside))


_LAZY = (
    nn.LazyBatchNorm1d,
    nn.LazyBatchNorm2d,
    nn.LazyBatchNorm3d,
    nn.LazyInstanceNorm1d,
    nn.LazyInstanceNorm2d,
    nn.LazyInstanceNorm3d,
)
