"""The weights before a norm, found by walking the autograd graph back from the norm's input.

A linear layer is one product, but its output comes through more nodes than that, and which ones depends on
the release of torch, on dimensions and strides, and on autocast: views, `squeeze`, a bias that is added by
itself, casts. So no order of nodes is expected here. The walk passes whatever only renames places, keeps
track of the dimension in which the norm's channels stand, and takes a product only where they are its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bnprobe.norms import LAST, NormLayer
from bnprobe.probe.backward.autograd_walk import FARTHEST, Node, before, kind_of, parameter_behind, shape_of


@dataclass(frozen=True)
class Producer:
    """The weights before a norm: their gradient is output `index` of `node`.

    The norm's channels are dimension `gradient_dim` of that gradient, and `weight_dim` of the parameter. `bias`
    is NaN where the graph does not say whether there is one.
    """

    node: Node
    index: int
    weight: Tensor
    bias: Tensor | None
    weight_dim: int
    gradient_dim: int

    def rows(self, tensor: Tensor, of_parameter: bool = False) -> Tensor:
        """The weight, or its gradient along the edge, as (channels, inputs), at least in float32."""
        whole = tensor.detach()
        whole = whole if whole.dtype == torch.float64 else whole.float()
        return whole.movedim(self.weight_dim if of_parameter else self.gradient_dim, 0).flatten(1)


@dataclass(frozen=True)
class _Product:
    """A node that multiplies by weights: the edges of weights and bias, and the dimension of its outputs."""

    weight: int
    bias: int | None
    dim: int
    weight_dim: int


_PRODUCTS = {
    "ConvolutionBackward": _Product(weight=1, bias=2, dim=1, weight_dim=0),
    "AddmmBackward": _Product(weight=2, bias=0, dim=1, weight_dim=1),
    "MmBackward": _Product(weight=1, bias=None, dim=1, weight_dim=1),
    # einsum multiplies one matrix as a batch of one
    "BmmBackward": _Product(weight=1, bias=None, dim=2, weight_dim=2),
    # some devices do not take a linear layer apart: MPS
    "LinearBackward": _Product(weight=1, bias=2, dim=-1, weight_dim=0),
}


def producer(node: Node | None, index: int, plan: NormLayer) -> Producer | None:
    """The convolution or linear layer whose output is output `index` of `node`, which is the norm's input.

    None where its weight is not a parameter being trained, or its outputs are not the norm's channels. A frozen
    bias leaves no edge in the graph, so that its value is out of reach: then there is no producer either.
    """
    shape = shape_of(node, index)
    dim = None if shape is None else _channel_dim(plan, len(shape))
    bias: Tensor | None = None
    for _ in range(FARTHEST):
        if node is None or dim is None:
            return None
        if (product := _PRODUCTS.get(kind_of(node))) is not None:
            return _feeder(node, product, dim, bias, plan)
        if bias is None and kind_of(node) == "AddBackward":
            node, bias = _without_bias(node, dim)
        else:
            node, dim = before(node, dim)
    return None


def _channel_dim(plan: NormLayer, n_dims: int) -> int | None:
    """Where the channels stand in an input of so many dimensions; None where they fill several."""
    if plan.channels == LAST:
        return n_dims - 1 if plan.n_channel_dims == 1 else None
    return 0 if n_dims == plan.unbatched_dims else 1


def _feeder(
    node: Node, product: _Product, dim: int, added: Tensor | None, plan: NormLayer
) -> Producer | None:
    """The product as a producer; `added` is the bias that was found on the way to it."""
    shape = shape_of(node, 0)
    weight, weight_dim = parameter_behind(node.next_functions[product.weight][0], product.weight_dim)
    if shape is None or dim != product.dim % len(shape) or weight is None or weight_dim is None:
        return None
    if weight.shape[weight_dim] != plan.n_channels or not _as_layers_do(node, shape):
        return None
    known, bias = _bias(node, product, plan.n_channels)
    if not known or (bias is not None and added is not None):
        return None
    bias = added if bias is None else bias
    return Producer(node, product.weight, weight, bias, weight_dim, product.weight_dim)


def _as_layers_do(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether the product is what a layer computes: not transposed, not scaled, with one matrix for all."""
    kind = kind_of(node)
    if kind == "AddmmBackward":
        return bool(node._saved_alpha == node._saved_beta == 1)
    if kind == "ConvolutionBackward":
        return not node._saved_transposed
    return kind != "BmmBackward" or shape[0] == 1


def _bias(node: Node, product: _Product, n: int) -> tuple[bool, Tensor | None]:
    """Whether what the product adds is known well enough, and the bias of n channels; None where it adds none."""
    source = None if product.bias is None else node.next_functions[product.bias][0]
    if source is not None:
        bias = _vector(source, n)
        return bias is not None, bias
    # no edge leads to a frozen bias
    if kind_of(node) == "ConvolutionBackward":
        return not sum(node._saved_bias_sym_sizes_opt or ()), None
    if kind_of(node) == "LinearBackward":
        return True, torch.full((n,), float("nan"))
    return product.bias is None, None


def _without_bias(node: Node, dim: int) -> tuple[Node | None, Tensor | None]:
    """The other term of a sum with a parameter that has one entry per channel; nothing of any other sum.

    So torch adds the bias of a linear layer whose input is not contiguous.
    """
    shape, terms = shape_of(node, 0), [source for source, _ in node.next_functions]
    if shape is None or len(terms) != 2 or dim != len(shape) - 1 or node._saved_alpha != 1:
        return None, None
    for source, other in (terms, terms[::-1]):
        bias = _vector(other, shape[-1])
        if bias is not None and shape_of(source, 0) == shape:
            return source, bias
    return None, None


def _vector(node: Node | None, n: int) -> Tensor | None:
    """The parameter behind an edge along which one number for each of n channels is added; None where it is none."""
    shape = shape_of(node, 0)
    if shape is None or shape[-1:] != (n,) or prod(shape) != n:
        return None
    return parameter_behind(node, 0)[0]
