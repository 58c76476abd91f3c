"""Where the gradients of a norm pass in the autograd graph, and what one backward pass tells.

Hooks sit on nodes of the graph, never on the user's tensors: they see the gradient at the norm's own
output and input whatever happens to those tensors later (an in-place ReLU, a residual add), and they
go with the graph. For one-node norms (batch, layer, group) the node's inputs and outputs are dy, dx,
dgamma and dbeta; for norms composed of several operations the graph is walked from the output back
to the edges that lead to the input and to the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bnprobe.condense import read
from bnprobe.norms import NormLayer
from bnprobe.observation import Before
from bnprobe.recording import BATCH, INSTANCE, FeederRecord, GradientRecord
from bnprobe.stats import Moments
from bnprobe.stats.moments import Array

MOST_NODES = 400
"""Nodes walked before a norm's graph is given up: the longest composed norms have about twenty."""

NEARLY_NOTHING = 1e-6
"""Share of the gradient's energy below which what is left of it is rounding."""

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

    `feeder` is the convolution or linear layer whose output is the norm's input and nothing else.
    """

    output: Node
    output_index: int
    view: View | None
    edges: dict[str, list[tuple[Node, int]]]
    feeder: Feeder | None

    def nodes(self) -> Iterator[Node]:
        """Every node to hook, once."""
        yield from dict.fromkeys([self.output, *(node for edges in self.edges.values() for node, _ in edges)])


@dataclass(frozen=True)
class Feeder:
    """The weights before a norm: their gradient is output `index` of `node`, rows are output channels."""

    node: Node
    index: int
    weight: Tensor | None
    bias: Tensor | None
    has_bias: bool
    transposed: bool

    def rows(self, tensor: Tensor, of_parameter: bool = False) -> Tensor:
        """The weight, or its gradient along the edge, as (channels, inputs), float64.

        A linear layer multiplies by its transposed weight, so along that edge the gradient lies on its side.
        """
        whole = tensor.detach().to(torch.float64)
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
    return Route(made.grad_fn, made.output_nr, view, edges, _feeder(origin, plan))


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


def _feeder(origin: Origin | None, plan: NormLayer) -> Feeder | None:
    """The convolution or linear layer that made the input, where its weight is a parameter being trained.

    A frozen bias leaves no edge in the graph, so that its value is out of reach: then there is no feeder.
    """
    node = origin.node if origin is not None else None
    if node is None:
        return None
    sources = [source for source, _ in node.next_functions]
    kind = node.name().rstrip("0123456789")
    if kind == "ConvolutionBackward" and not node._saved_transposed:
        has_bias = sum(node._saved_bias_sym_sizes_opt or ()) > 0
        found = Feeder(node, 1, _variable(sources[1]), _variable(sources[2]), has_bias, False)
    elif kind == "AddmmBackward":
        found = Feeder(node, 2, _variable_behind_transpose(sources[2]), _variable(sources[0]), True, True)
    elif kind == "MmBackward":
        found = Feeder(node, 1, _variable_behind_transpose(sources[1]), None, False, True)
    else:
        return None
    if found.weight is None or (found.has_bias and found.bias is None):
        return None
    return found if len(found.rows(found.weight, of_parameter=True)) == plan.n_channels else None


def _variable(source: Node | None) -> Tensor | None:
    """The parameter whose gradient accumulates at this node."""
    return getattr(source, "variable", None)


def _variable_behind_transpose(source: Node | None) -> Tensor | None:
    """The parameter behind the transposition with which a linear layer multiplies."""
    if source is None or source.name().rstrip("0123456789") != "TBackward":
        return None
    return _variable(source.next_functions[0][0])


class Listener(Protocol):
    """Whoever wants the gradients: a probe."""

    @property
    def listening(self) -> bool:
        """False once detached; hooks that live on in a graph are silent then."""

    def backward_begins(self, call: BackwardCall) -> float:
        """Told when a backward pass reaches `call`; returns the factor by which the loss is scaled."""


class BackwardCall:
    """One forward call of a norm, waiting for the gradients that pass it.

    Pieces are reduced as they come, so no gradient outlives its node. `finish` turns them into a
    record at the end of each backward pass, of which one forward pass may have several.
    """

    def __init__(
        self,
        before: Before,
        way: Route,
        inverse_var: Tensor | None,
        site: tuple[str, int],
        listener: Listener,
    ) -> None:
        self.site = site
        self.listener = listener
        self._plan, self._vectors, self._map = before.plan, before.vectors, before.map
        moments = before.reading.moments
        self._var = moments.m2 / np.maximum(moments.n, 1)
        self._normalizes_itself = not before.plan.uses_running
        self._inverse_var = inverse_var
        self._whole = {role: len(edges) for role, edges in way.edges.items()}
        self._pieces: dict[str, Any] = {}
        self._task: int | None = None
        self._scale = 1.0
        self._hook(way)

    def _hook(self, way: Route) -> None:
        for node in way.nodes():
            roles = [(role, i) for role, edges in way.edges.items() for source, i in edges if source is node]
            node.register_hook(
                _NodeHook(self, roles, way.output_index if node is way.output else None, way.view)
            )
        if way.feeder is not None:
            way.feeder.node.register_hook(_FeederHook(self, way.feeder))

    def take_output(self, dy: Tensor) -> None:
        """The gradient at the norm's output."""
        self._begin()
        rows = self._plan.rows(dy.detach())
        per_sample = self._map is not None and self._map.scale.ndim == 2
        reading = read(rows, keep_rows=per_sample)
        self._pieces["dy"] = reading
        self._pieces["energy"] = self._energy_of(rows, reading.rows or reading.moments)

    def take(self, role: str, gradient: Tensor) -> None:
        """A gradient along one edge; an input or parameter used more than once in the norm has several."""
        self._begin()
        parts = self._pieces.setdefault(role, [])
        parts.append(gradient.detach())
        if role == "dx" and len(parts) == self._whole["dx"]:
            self._pieces["dx"] = read(self._plan.rows(sum(parts[1:], parts[0])))

    def take_weight(self, feeder: Feeder, gradient: Tensor) -> None:
        """The gradient of the weights that feed the norm."""
        self._begin()
        assert feeder.weight is not None
        w = feeder.rows(feeder.weight, of_parameter=True)
        g = feeder.rows(gradient)
        numbers = ((w * w).sum(1), (g * g).sum(1), (w * g).sum(1))
        bias = np.zeros(len(w)) if feeder.bias is None else _numpy(feeder.bias)
        self._pieces["feeder"] = (*(_numpy(v) for v in numbers), bias)

    def finish(self) -> GradientRecord | None:
        """The record of the backward pass that ends now; None when the gradient did not come through."""
        pieces, self._pieces, self._task = self._pieces, {}, None
        # gradients that are not finite are counted and left out; their arithmetic is no one's warning
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self._record(pieces, 1.0 / self._scale) if "dy" in pieces else None

    def _record(self, pieces: dict[str, Any], by: float) -> GradientRecord:
        """The record of one pass; `by` takes a loss scale out."""
        dy = pieces["dy"].moments.affine(by, 0.0)
        # some edges got no gradient, or one value that is not finite spoilt all it was pooled with
        whole = not isinstance(pieces.get("dx"), list) and not pieces["dy"].n_nonfinite.any()
        dx = pieces["dx"].moments.affine(by, 0.0) if whole and "dx" in pieces else None
        # only what dx can be held against
        energy = np.zeros(dy.shape) if dx is None else np.where(dx.n > 0, pieces["energy"] * by**2, 0.0)
        dgamma, dbeta = (self._vector(pieces.get(role), by) for role in ("dgamma", "dbeta"))
        missing = np.full(self._plan.n_channels, np.nan)
        return GradientRecord(
            n_passes=1,
            n_passes_dx=0 if dx is None else 1,
            dy=dy,
            dy_nonfinite=pieces["dy"].n_nonfinite,
            dx=dx,
            gamma=None if dgamma is None else Moments.of(dgamma[None]),
            beta=None if dbeta is None else Moments.of(dbeta[None]),
            importance=self._importance(dgamma, dbeta),
            energy=energy,
            gap_centre=missing if dx is None else self._gap_centre(dx, energy),
            gap_map=missing if dx is None else self._gap_map(dy, dx),
            feeder=self._feeder(pieces.get("feeder"), by, self._expected_wg(dgamma, dy, dx), dx, energy),
        )

    def _begin(self) -> None:
        """Start anew with every backward pass: one that failed leaves its pieces behind."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._pieces, self._task = {}, task
            self._scale = self.listener.backward_begins(self)

    def _energy_of(self, rows: Tensor, moments: Moments) -> Array:
        """Sum of (dy * scale)^2 per channel: the energy dx would have if mean and variance were constants."""
        if self._map is not None:
            energy = np.nan_to_num(self._map.scale) ** 2 * _energy(moments)
            return energy.sum(axis=0) if energy.ndim == 2 else energy
        assert self._inverse_var is not None
        gamma = 1.0 if self._vectors.gamma is None else self._vectors.gamma
        squares = rows.to(torch.float64) ** 2 * self._inverse_var
        return gamma**2 * _numpy(torch.where(torch.isfinite(squares), squares, 0.0).sum((0, 2)))

    def _vector(self, parts: list[Tensor] | None, by: float) -> Array | None:
        return None if not parts else by * sum((_numpy(part) for part in parts[1:]), _numpy(parts[0]))

    def _importance(self, dgamma: Array | None, dbeta: Array | None) -> Moments | None:
        """|gamma dgamma + beta dbeta|: to first order, what the loss changes when the channel is set to zero."""
        if dgamma is None or self._vectors.gamma is None:
            return None
        beta = self._vectors.beta
        total = self._vectors.gamma * dgamma + (0.0 if beta is None or dbeta is None else beta * dbeta)
        return Moments.of(np.abs(total)[None])

    def _gap_centre(self, dx: Moments, energy: Array) -> Array:
        """|sum dx| against the largest it could be without centring, for norms that take out the mean."""
        if not self._normalizes_itself or self._plan.pools not in (BATCH, INSTANCE):
            return np.full(dx.shape, np.nan)
        return _relative(np.abs(dx.n * dx.mean), np.sqrt(dx.n * energy))

    def _gap_map(self, dy: Moments, dx: Moments) -> Array:
        """How far dx is from dy * gamma / sqrt(running_var + eps), for norms that use running statistics."""
        if self._normalizes_itself or self._map is None:
            return np.full(dx.shape, np.nan)
        expected = dy.affine(self._map.scale, 0.0)
        size = np.sqrt(_energy(expected) / np.maximum(expected.n, 1))
        seen = np.sqrt(_energy(dx) / np.maximum(dx.n, 1))
        return _relative(np.maximum(np.abs(dx.mean - expected.mean), np.abs(seen - size)), size)

    def _feeder(
        self, numbers: Any, by: float, expected: Any, dx: Moments | None, energy: Array
    ) -> FeederRecord | None:
        """The weights before the norm: their size, their gradient, and the identity that ties it to gamma's."""
        if numbers is None:
            return None
        ww, gg, wg, bias = numbers
        gg, wg = gg * by**2, wg * by
        gap = np.full(len(ww), np.nan)
        if expected is not None and dx is not None:
            gap = _relative(np.abs(wg - expected(bias)), np.sqrt(ww * gg))
            # where the norm takes out all of the gradient, dx and dw are rounding, and tell nothing
            gap = np.where(_energy(dx) > NEARLY_NOTHING * energy, gap, np.nan)
        return FeederRecord(
            norm=Moments.of(np.sqrt(ww)[None]),
            grad_norm=Moments.of(np.sqrt(gg)[None]),
            angle=Moments.of(_relative(np.sqrt(np.maximum(gg - _relative(wg**2, ww), 0)), np.sqrt(ww))[None]),
            gap=gap,
        )

    def _expected_wg(
        self, dgamma: Array | None, dy: Moments, dx: Moments | None
    ) -> Callable[[Array], Array] | None:
        """<w, dL/dw> of each channel's weights as gamma's gradient implies it, given their bias.

        With its own statistics: gamma dgamma eps / (v + eps). With running ones: gamma dgamma +
        gamma mean / sqrt(var + eps) dbeta - bias sum dx. Source: van Laarhoven 2017, arXiv:1706.05350,
        with eps kept; the second form follows from dx = dy gamma / sqrt(var + eps). None where unknown.
        """
        gamma, mapping = self._vectors.gamma, self._map
        if dgamma is None or gamma is None or dx is None or mapping is None or self._plan.pools != BATCH:
            return None
        if self._normalizes_itself:
            implied = gamma * dgamma * self._plan.eps / (self._var + self._plan.eps)
            return lambda bias: implied
        implied = gamma * dgamma + mapping.scale * mapping.origin * dy.n * dy.mean
        return lambda bias: implied - bias * dx.n * dx.mean


class _NodeHook:
    """What a node of the norm's graph tells: gradients along some of its edges, and at the output."""

    def __init__(
        self, call: BackwardCall, roles: list[tuple[str, int]], output_index: int | None, view: View | None
    ) -> None:
        self.call, self.roles, self.output_index, self.view = call, roles, output_index, view

    def __call__(self, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
        if not self.call.listener.listening:
            return
        with torch.no_grad():
            dy = None if self.output_index is None else outputs[self.output_index]
            if dy is not None:
                self.call.take_output(dy if self.view is None else self.view.of(dy))
            for role, position in self.roles:
                gradient = inputs[position]
                if gradient is not None:
                    self.call.take(role, gradient)


class _FeederHook:
    """The gradient of the weights that feed the norm."""

    def __init__(self, call: BackwardCall, feeder: Feeder) -> None:
        self.call, self.feeder_index = call, feeder.index
        self.feeder = replace(feeder, node=None)  # a node that holds its own hook's node would never go

    def __call__(self, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
        gradient = inputs[self.feeder_index]
        if gradient is not None and self.call.listener.listening:
            with torch.no_grad():
                self.call.take_weight(self.feeder, gradient)


def _energy(moments: Moments) -> Array:
    """Sum of squares."""
    return moments.m2 + moments.n * moments.mean**2


def _relative(top: Array, bottom: Array) -> Array:
    """top / bottom; NaN where bottom is 0, so that a channel without gradient violates nothing."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)


def _numpy(tensor: Tensor) -> Array:
    return np.array(tensor.detach().to("cpu", torch.float64).reshape(-1).numpy())
