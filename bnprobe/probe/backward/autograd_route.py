"""The autograd graph around a norm: along which edges its gradients pass.

Hooks sit on nodes of the graph, never on the user's tensors: they see the gradient at the norm's own
output and input whatever happens to those tensors later (an in-place ReLU, a residual add), and they
go with the graph. For one-node norms (batch, layer, group) the node's inputs and outputs are dy, dx,
dgamma and dbeta; for norms composed of several operations the graph is walked from the output back
to the edges that lead to the input and to the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnprobe.norms import NormLayer

MOST_NODES = 400
"""Nodes walked before a norm's graph is given up: the longest composed norms have about twenty."""

Node = Any  # torch.autograd.graph.Node, whose C++ subclasses carry attributes of their own


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from in the graph: output `index` of `node`, or the leaf itself."""

    node: Node | None
    index: int
    leaf: Tensor | None


def origin_of(x: Tensor) -> Origin | None:
    """Where x comes from, asked before the norm runs (it may work in place); None without a gradient."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return None
    return Origin(x.grad_fn, x.output_nr, x if x.grad_fn is None else None)


@dataclass(frozen=True)
class Route:
    """The edges, as (node, position), whose gradients are dx, dgamma and dbeta; and the output's node.

    `producer` is the convolution or linear layer whose output is the norm's input and nothing else.
    """

    output: Node
    output_index: int
    view: View | None
    edges: dict[str, list[tuple[Node, int]]]
    producer: Producer | None

    def nodes(self) -> Iterator[Node]:
        """Every node to hook, once."""
        yield from dict.fromkeys([self.output, *(node for edges in self.edges.values() for node, _ in edges)])


@dataclass(frozen=True)
class Producer:
    """The weights before a norm: their gradient is output `index` of `node`, rows are output channels."""

    node: Node
    index: int
    weight: Tensor | None
    bias: Tensor | None
    has_bias: bool
    transposed: bool

    def rows(self, tensor: Tensor, of_parameter: bool = False) -> Tensor:
        """The weight, or its gradient along the edge, as (channels, inputs), at least in float32.

        A linear layer multiplies by its transposed weight, so along that edge the gradient lies on its side.
        """
        whole = tensor.detach()
        whole = whole if whole.dtype == torch.float64 else whole.float()
        return (whole.t() if self.transposed and not of_parameter else whole).flatten(1)


def route(y: Tensor, origin: Origin | None, plan: NormLayer) -> Route | None:
    """The way of the gradients from y back to the input and the parameters; None without a graph."""
    view = _view(y)
    made = y if view is None else y._base
    if made is None or made.grad_fn is None or (origin is not None and made.grad_fn is origin.node):
        return None
    edges: dict[str, list[tuple[Node, int]]] = {"dx": [], "dgamma": [], "dbeta": []}
    waiting, met = [made.grad_fn], {made.grad_fn}
    while waiting:
        node = waiting.pop()
        for position, (source, index) in enumerate(node.next_functions):
            role = _role(source, index, origin, plan)
            if role in edges:
                edges[role].append((node, position))
            elif source is not None and role is None and source not in met:
                met.add(source)
                waiting.append(source)
        if len(met) > MOST_NODES:
            return None
    return Route(made.grad_fn, made.output_nr, view, edges, _producer(origin, plan))


@dataclass(frozen=True)
class View:
    """How a tensor looks at the one it is a view of, so that a gradient can be looked at alike.

    Instance norm and torchvision's LayerNorm2d return views, and an in-place operation on a view cuts
    its own node out of the graph: what stays is the node of the tensor behind it.
    """

    base_shape: torch.Size
    base_strides: tuple[int, ...]
    shape: torch.Size
    strides: tuple[int, ...]
    offset: int

    def of(self, gradient: Tensor) -> Tensor:
        """The gradient of the tensor behind, seen through the view."""
        if gradient.stride() != self.base_strides or gradient.storage_offset():
            laid = gradient.new_empty_strided(self.base_shape, self.base_strides)
            gradient = laid.copy_(gradient)
        return gradient.as_strided(self.shape, self.strides, self.offset)


def _view(y: Tensor) -> View | None:
    """How y looks at all of another tensor; None where it does not."""
    base = y._base
    if base is None or base.grad_fn is None or base.numel() != y.numel():
        return None
    offset = int(y.storage_offset()) - int(base.storage_offset())
    return View(base.shape, base.stride(), y.shape, y.stride(), offset)


def _role(source: Node | None, index: int, origin: Origin | None, plan: NormLayer) -> str | None:
    """What the gradient along an edge is: dx, dgamma, dbeta, of another leaf ("other"), or None to walk on."""
    if source is None:
        return "other"
    variable = getattr(source, "variable", None)
    if origin is not None:
        if origin.node is not None and source is origin.node and index == origin.index:
            return "dx"
        if origin.leaf is not None and variable is origin.leaf:
            return "dx"
    if variable is None:
        return None
    if variable is plan.weight:
        return "dgamma"
    return "dbeta" if variable is plan.bias else "other"


def _producer(origin: Origin | None, plan: NormLayer) -> Producer | None:
    """The convolution or linear layer that made the input, where its weight is a parameter being trained.

    A frozen bias leaves no edge in the graph, so that its value is out of reach: then there is no feeder.
    """
    # a linear layer on more than two dimensions multiplies a matrix, and gives its rows their places back
    node = _behind(origin.node, "UnsafeViewBackward") if origin is not None else None
    if node is None:
        return None
    sources = [source for source, _ in node.next_functions]
    kind = _kind(node)
    if kind == "ConvolutionBackward" and not node._saved_transposed:
        has_bias = sum(node._saved_bias_sym_sizes_opt or ()) > 0
        found = Producer(node, 1, _variable(sources[1]), _variable(sources[2]), has_bias, False)
    elif kind == "AddmmBackward":
        found = Producer(node, 2, _variable_behind_transpose(sources[2]), _variable(sources[0]), True, True)
    elif kind == "MmBackward":
        found = Producer(node, 1, _variable_behind_transpose(sources[1]), None, False, True)
    else:
        return None
    if found.weight is None or (found.has_bias and found.bias is None):
        return None
    return found if found.weight.shape[0] == plan.n_channels else None


def _variable(source: Node | None) -> Tensor | None:
    """The parameter whose gradient accumulates at this node, or behind the cast that autocast put there."""
    return getattr(_behind(source, "ToCopyBackward"), "variable", None)


def _variable_behind_transpose(source: Node | None) -> Tensor | None:
    """The parameter behind the transposition with which a linear layer multiplies."""
    if source is None or _kind(source) != "TBackward":
        return None
    return _variable(source.next_functions[0][0])


def _behind(node: Node | None, kind: str) -> Node | None:
    """The node, or the one behind it if it is of this kind."""
    return node.next_functions[0][0] if node is not None and _kind(node) == kind else node


def _kind(node: Node) -> str:
    return str(node.name()).rstrip("0123456789")
