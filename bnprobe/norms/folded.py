"""Norms that were folded into the layer before them, and layers that mix channels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import sqrt
from re import sub

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from bnprobe.errors import class_name
from bnprobe.norms.classes import home
from bnprobe.norms.module_tree import ModuleTree, joined, parameters_of

BEYOND_INITIAL = 3.0
"""How many times larger a bias must be than initialization makes it, to be the offset of a norm that was folded in."""


def folded_away(tree: ModuleTree) -> tuple[str, ...]:
    """Paths where a norm was folded into the convolution before it.

    An identity alone is no evidence: architectures have them where a norm is left out. Besides, one of these must hold:

    - the bias needs no gradient although the weight does, as `fuse_conv_bn_eval` leaves a convolution that had none;
    - the convolution is one of torch's fused modules;
    - a place of the same name, but for numbers, still has a norm behind a convolution with a bias, and the bias here is
      larger than initialization makes one.
    """
    places = _behind_convolutions(tree)
    kept = {
        _role(path)
        for path, convolution, _, child in places
        if "norm" in class_name(child).lower() and convolution.bias is not None
    }
    return tuple(
        path
        for path, convolution, before, child in places
        if _is_identity_for_norm(path, convolution, child)
        and (_shows_fusion(convolution, before) or (_role(path) in kept and _is_large(convolution)))
    )


def identities_for_norms(tree: ModuleTree) -> tuple[str, ...]:
    """Paths of `nn.Identity` behind a convolution with a bias, with the name of a norm or an index in a Sequential."""
    return tuple(
        path
        for path, convolution, _, child in _behind_convolutions(tree)
        if _is_identity_for_norm(path, convolution, child)
    )


def _behind_convolutions(tree: ModuleTree) -> list[tuple[str, _ConvNd, nn.Module, nn.Module]]:
    """Each module behind a convolution: its path, the convolution, the module that is or begins with it, and itself."""
    found = []
    for path, parent in tree.modules.items():
        for (_, before), (name, child) in pairwise(tree.children(parent)):
            first = next((inner for _, inner in tree.children(before)), None)
            convolution = first if isinstance(before, nn.Sequential) else before
            if isinstance(convolution, _ConvNd):
                found.append((joined(path, name), convolution, before, child))
    return found


def _is_identity_for_norm(path: str, convolution: _ConvNd, child: nn.Module) -> bool:
    name = path.rpartition(".")[2]
    named = name.isdigit() or any(word in name.lower() for word in ("bn", "norm"))
    return type(child) is nn.Identity and named and convolution.bias is not None


def _shows_fusion(convolution: _ConvNd, before: nn.Module) -> bool:
    fused = home(type(before)).startswith(("torch.ao.nn.intrinsic", "torch.nn.intrinsic"))
    bias = convolution.bias
    return fused or (bias is not None and convolution.weight.requires_grad and not bias.requires_grad)


def _role(path: str) -> str:
    """The path without numbers: what a module is for, in whatever block it stands."""
    return sub(r"\d+", "*", path)


def _is_large(convolution: _ConvNd) -> bool:
    """Whether a bias is far beyond the ±1 / √(inputs of a filter) from which torch draws it."""
    bias, weight = convolution.bias, convolution.weight
    if bias is None or bias.is_meta or isinstance(weight, UninitializedParameter) or not weight.numel():
        return False
    return float(bias.detach().abs().max()) > BEYOND_INITIAL / sqrt(weight[0].numel())


def has_matrix(modules: Iterable[nn.Module]) -> bool:
    """Whether a parameter that one of these modules holds itself mixes channels."""
    return any(_is_matrix(parameter) for module in modules for _, parameter in parameters_of(module))


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter mixes channels, as the weight of a convolution or a linear layer does."""
    if isinstance(parameter, UninitializedParameter):
        return True
    return parameter.numel() != max(parameter.shape, default=1)
