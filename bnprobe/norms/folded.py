"""Norms that were folded into the layer before them."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter


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
