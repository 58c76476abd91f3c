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

import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.backward.autograd_producer import Producer, producer
from bnprobe.probe.backward.autograd_walk import Node

MOST_NODES = 400
"""Nodes walked before a norm's graph is given up: the longest composed norms have about twenty."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from in the graph: output `index` of `node`, or the leaf itself; and the gate beside it."""

    node: Node | None
    index: int
    leaf: Tensor | None
    gate: Origin | None = None

    def gives(self, source: Node, index: int) -> bool:
        """Whether it is this output of this node."""
        if self.node is not None:
            return source is self.node and index == self.index
        return getattr(source, "variable", None) is self.leaf


def origin_of(x: Tensor, gate: Tensor | None = None) -> Origin | None:
    """Where x comes from, asked before the norm runs (it may work in place); None without a gradient."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return None
    return _origin(x, None if gate is None else _origin(gate))


def _origin(x: Tensor, gate: Origin | None = None) -> Origin:
    return Origin(x.grad_fn, x.output_nr, x if x.grad_fn is None else None, gate)


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
    before = None if origin is None else producer(origin.node, origin.index, plan)
    return Route(made.grad_fn, made.output_nr, view, edges, before)


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
    gate = None if origin is None or plan.gate is None else origin.gate
    if origin is not None and origin.gives(source, index):
        # of a gated norm it is the gradient of one factor, not of what is normalized
        return "dx" if gate is None else "other"
    if gate is not None and gate.gives(source, index):
        return "other"
    variable = getattr(source, "variable", None)
    if variable is None:
        return None
    if variable is plan.weight:
        return "dgamma"
    return "dbeta" if variable is plan.bias else "other"
