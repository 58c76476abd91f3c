"""Norms that were folded into the layer before them, and layers that mix channels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from bnprobe.norms.module_tree import ModuleTree, joined, parameters_of


def folded_away(tree: ModuleTree) -> tuple[str, ...]:
    """Paths where a norm was folded into the convolution before it, by what folding leaves: `nn.Identity`.

    Behind a convolution that has a bias by now, as `torch.ao.quantization.fuse_modules` and most hand-written
    fusions leave it; with the name of a norm, or an index in a Sequential. An identity elsewhere is a choice
    of the architecture.
    """
    found = []
    for path, parent in tree.modules.items():
        for (_, before), (name, child) in pairwise(tree.children(parent)):
            named = name.isdigit() or any(word in name.lower() for word in ("bn", "norm"))
            if type(child) is nn.Identity and named and _is_convolution_with_bias(before, tree):
                found.append(joined(path, name))
    return tuple(found)


def _is_convolution_with_bias(module: nn.Module, tree: ModuleTree) -> bool:
    """A convolution, or a fused sequence that begins with one."""
    first: nn.Module | None = module
    if isinstance(module, nn.Sequential):
        first = next((child for _, child in tree.children(module)), None)
    return isinstance(first, _ConvNd) and first.bias is not None


def has_matrix(modules: Iterable[nn.Module]) -> bool:
    """Whether a parameter that one of these modules holds itself mixes channels."""
    return any(_is_matrix(parameter) for module in modules for _, parameter in parameters_of(module))


def _is_matrix(parameter: Tensor) -> bool:
    """Whether a parameter mixes channels, as the weight of a convolution or a linear layer does."""
    if isinstance(parameter, UninitializedParameter):
        return True
    return parameter.numel() != max(parameter.shape, default=1)
