"""One backward pass at one call of a norm: its gradients, reduced as they arrive.

Pieces are read at the nodes that `autograd_route.route` found; no gradient is kept beyond its node. The passes of a
site are added up in `accumulators.GradientTotals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bnprobe.probe.backward.autograd_producer import Producer
from bnprobe.probe.backward.autograd_route import Origin, Route, View
from bnprobe.probe.calls import InputReading
from bnprobe.probe.tensors import held_here
from bnprobe.recording import NonfiniteGradient
from bnprobe.reductions import ReadRequest, float64_copy, moments_of, packed, products, read_valid
from bnprobe.stats import Moments
from bnprobe.stats.fields import NONFINITE
from bnprobe.stats.moments import Array

NEARLY_NOTHING = 1e-6
"""Share of the gradient's energy below which the remainder is rounding."""


class Listener(Protocol):
    """What receives the gradients: a probe."""

    @property
    def listening(self) -> bool:
        """False once detached; hooks that are still in a graph do nothing then."""

    def backward_missed(self) -> None:
        """Called when a backward pass reaches a norm after `detach`."""

    def backward_begins(self, call: BackwardCall) -> float:
        """Called when a backward pass reaches `call`; returns the factor by which the loss is scaled."""


@dataclass
class PassGradient:
    """One backward pass at one call of a norm, ready to be added: see `recording.GradientRecord`.

    `dy` and `dx` are packed readings; `vectors` holds what is one number per channel and pass, by the
    names of `GradientRecord` ("gamma", "beta", "importance") and `ProducerRecord` ("norm", "grad_norm",
    "angle"), as far as there was one; shapes (C,). `nonfinite` is None where everything was finite.
    """

    dy: Array
    dx: Array | None
    energy: Array
    gap_centre: Array
    gap_map: Array
    gap_weight: Array | None
    vectors: dict[str, Array]
    nonfinite: NonfiniteGradient | None


class BackwardCall:
    """One forward call of a norm, waiting for the gradients that pass it.

    Pieces are reduced as they come. `finish` puts them together at the end of each backward pass, of
    which one forward pass may have several.
    """

    def __init__(
        self,
        before: InputReading,
        way: Route,
        inverse_var: Tensor | None,
        site: tuple[str, int],
        listener: Listener,
        origin: Origin | None = None,
    ) -> None:
        self.site = site
        self.listener = listener
        self._plan, self._vectors, self._map = before.plan, before.vectors, before.map
        self._valid = before.valid
        moments = before.seen_by_norm.moments
        self._var = moments.m2 / np.maximum(moments.n, 1)
        self._normalizes_itself = not before.plan.uses_running
        self._inverse_var = inverse_var
        self._zeros = np.zeros(before.plan.n_channels)
        self._whole = {role: len(edges) for role, edges in way.edges.items()}
        self._pieces: dict[str, Any] = {}
        self._task: int | None = None
        self._scale = 1.0
        self._hook(way)
        if origin is not None and origin.node is not None and self._divides_each_token:
            origin.node.register_prehook(_StreamHook(self, origin.index))

    def _hook(self, way: Route) -> None:
        for node in way.nodes():
            roles = [(role, i) for role, edges in way.edges.items() for source, i in edges if source is node]
            node.register_hook(
                _NodeHook(self, roles, way.output_index if node is way.output else None, way.view)
            )
        if way.producer is not None:
            way.producer.node.register_hook(_ProducerHook(self, way.producer))

    @property
    def _divides_each_token(self) -> bool:
        """Whether each token has a scale of its own, as layer and RMS norms give it."""
        return self._inverse_var is not None and not self._plan.pool.positions

    def take_stream(self, gradient: Tensor) -> None:
        """All of the gradient at what the norm is given, whoever else uses it: beside this norm, its residual stream."""
        self._begin()
        self._pieces["stream"] = self._times_scale(self._plan.rows(gradient.detach()))

    def take_output(self, dy: Tensor) -> None:
        """The gradient at the norm's output."""
        self._begin()
        rows = self._plan.rows(dy.detach())
        per_sample = self._map is not None and self._map.scale.ndim == 2
        request = ReadRequest(origin=self._zeros, keep_rows=per_sample)
        reading = read_valid(rows, self._valid, request)
        self._pieces["dy"] = reading.packed
        self._pieces["energy"] = self._energy_of(rows, reading.rows or reading.moments)

    def take(self, role: str, gradient: Tensor) -> None:
        """A gradient along one edge; an input or parameter used more than once in the norm has several."""
        self._begin()
        parts = self._pieces.setdefault(role, [])
        # what a parameter gets becomes its .grad, and grows in place when another thread's pass ends before this one
        parts.append(gradient.detach() if role == "dx" else gradient.detach().clone())
        if role == "dx" and len(parts) == self._whole["dx"]:
            rows = self._plan.rows(sum(parts[1:], parts[0]))
            self._pieces["dx"] = read_valid(rows, self._valid, ReadRequest(origin=self._zeros)).packed

    def take_weight(self, producer: Producer, gradient: Tensor) -> None:
        """The gradient of the weights before the norm."""
        self._begin()
        w, g = producer.rows(producer.weight, of_parameter=True), producer.rows(gradient)
        bias = self._zeros if producer.bias is None else float64_copy(producer.bias)
        self._pieces["producer"] = (*products(w, g), bias)

    def finish(self) -> PassGradient | None:
        """The backward pass that ends now; None if no gradient arrived at the output."""
        pieces, self._pieces, self._task = self._pieces, {}, None
        # gradients that are not finite are counted and left out, without warnings
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self._put_together(pieces, 1.0 / self._scale) if "dy" in pieces else None

    def _put_together(self, pieces: dict[str, Any], by: float) -> PassGradient:
        """One pass; `by` takes a loss scale out."""
        packed_dy = _scaled(pieces["dy"], by)
        # some edges got no gradient, or one value that is not finite spoilt all it was pooled with
        whole = "dx" in pieces and not isinstance(pieces["dx"], list) and not packed_dy[NONFINITE].any()
        packed_dx = _scaled(pieces["dx"], by) if whole else None
        dy, dx = moments_of(packed_dy), None if packed_dx is None else moments_of(packed_dx)
        # only what dx can be compared with
        energy = np.zeros(dy.shape) if dx is None else np.where(dx.n > 0, pieces["energy"] * by**2, 0.0)
        dgamma, dbeta = (self._vector(pieces.get(role), by) for role in ("dgamma", "dbeta"))
        missing = np.full(self._plan.n_channels, np.nan)
        vectors = {"gamma": dgamma, "beta": dbeta, "importance": self._importance(dgamma, dbeta)}
        vectors["stream"] = pieces["stream"] * by**2 if "stream" in pieces else None
        gap_weight = None
        if "producer" in pieces:
            expected = self._expected_wg(dgamma, dy, dx)
            of_weights, gap_weight = self._producer(pieces["producer"], by, expected, dx, energy)
            vectors |= of_weights
        return PassGradient(
            packed_dy,
            packed_dx,
            energy,
            gap_centre=missing if dx is None else self._gap_centre(dx, energy),
            gap_map=missing if dx is None else self._gap_map(dy, dx),
            gap_weight=gap_weight,
            vectors={name: vector for name, vector in vectors.items() if vector is not None},
            nonfinite=self._nonfinite(pieces, dgamma, dbeta),
        )

    def _nonfinite(
        self, pieces: dict[str, Any], dgamma: Array | None, dbeta: Array | None
    ) -> NonfiniteGradient | None:
        """Where a gradient of this pass is NaN or infinite; None if nowhere."""
        dy, dx = pieces["dy"][NONFINITE], pieces.get("dx")
        dx_values = self._zeros if dx is None or isinstance(dx, list) else dx[NONFINITE]
        gamma, beta = (self._zeros if v is None else ~np.isfinite(v) for v in (dgamma, dbeta))
        arrives = bool(dy.any())
        arises = not arrives and bool(dx_values.any() or gamma.any() or beta.any())
        if not (arrives or arises):
            return None
        return NonfiniteGradient(
            dx_values,
            dy_passes=(dy > 0).astype(np.float64),
            dx_passes=(dx_values > 0).astype(np.float64),
            gamma_passes=gamma.astype(np.float64),
            beta_passes=beta.astype(np.float64),
            n_arriving=int(arrives),
            n_arising=int(arises),
            n_scaled=int(self._scale != 1),
        )

    def _begin(self) -> None:
        """Start again with every backward pass: one that failed leaves its pieces behind."""
        task = torch._C._current_graph_task_id()
        if task != self._task:
            self._pieces, self._task = {}, task
            self._scale = self.listener.backward_begins(self)

    def _energy_of(self, rows: Tensor, moments: Moments) -> Array:
        """Sum of (dy * scale)^2 per channel: the energy dx would have if mean and variance were constants."""
        with np.errstate(over="ignore", invalid="ignore"):  # weights that diverged
            if self._map is not None:
                energy = np.nan_to_num(self._map.scale) ** 2 * _energy(moments)
                return energy.sum(axis=0) if energy.ndim == 2 else energy
            assert self._inverse_var is not None
            gamma = 1.0 if self._vectors.gamma is None else self._vectors.gamma
            return gamma**2 * self._sum_of(rows.to(torch.float64) ** 2 * self._inverse_var)

    def _times_scale(self, rows: Tensor) -> Array:
        """Sum of (gradient * scale of its token)^2 per channel."""
        assert self._inverse_var is not None
        return self._sum_of(rows.to(torch.float64) ** 2 / self._inverse_var)

    def _sum_of(self, squares: Tensor) -> Array:
        """Per channel, of what is finite and counts."""
        counted = torch.isfinite(squares)
        if self._valid is not None:
            counted &= torch.from_numpy(self._valid.mask).to(squares.device)[:, None]
        return float64_copy(torch.where(counted, squares, 0.0).sum((0, 2)))

    def _vector(self, parts: list[Tensor] | None, by: float) -> Array | None:
        return (
            None
            if not parts
            else by * sum((float64_copy(part) for part in parts[1:]), float64_copy(parts[0]))
        )

    def _importance(self, dgamma: Array | None, dbeta: Array | None) -> Array | None:
        """|gamma dgamma + beta dbeta|: to first order, what the loss changes when the channel is set to zero."""
        if dgamma is None or self._vectors.gamma is None:
            return None
        beta = self._vectors.beta
        total = self._vectors.gamma * dgamma + (0.0 if beta is None or dbeta is None else beta * dbeta)
        magnitude: Array = np.abs(total)
        return magnitude

    def _gap_centre(self, dx: Moments, energy: Array) -> Array:
        """|sum dx| against the largest it could be without centring, for norms that take out the mean."""
        centres = self._normalizes_itself and self._plan.centred and self._plan.pool.within_channel
        if not centres or self._valid is not None:  # it takes the mean out of all positions
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

    def _producer(
        self, numbers: Any, by: float, expected: Any, dx: Moments | None, energy: Array
    ) -> tuple[dict[str, Array], Array]:
        """The weights before the norm: their size, their gradient's, the angle of a step; and how far the
        identity that ties them to gamma's gradient is violated."""
        w, g, wg, bias = numbers
        g, wg = g * by, wg * by
        gap = np.full(len(w), np.nan)
        if expected is not None and dx is not None:
            gap = _relative(np.abs(wg - expected(bias)), w * g)
            # if the norm removes all of the gradient, dx and dw are rounding errors
            gap = np.where(_energy(dx) > NEARLY_NOTHING * energy, gap, np.nan)
        angle = _relative(np.sqrt(np.maximum(g**2 - _relative(wg**2, w**2), 0)), w)
        return {"norm": w, "grad_norm": g, "angle": angle}, gap

    def _expected_wg(
        self, dgamma: Array | None, dy: Moments, dx: Moments | None
    ) -> Callable[[Array], Array] | None:
        """<w, dL/dw> of each channel's weights as gamma's gradient implies it, given their bias.

        With its own statistics: gamma dgamma eps / (v + eps). With running ones: gamma dgamma +
        gamma mean / sqrt(var + eps) dbeta - bias sum dx. Source: van Laarhoven 2017, arXiv:1706.05350,
        with eps kept; the second form follows from dx = dy gamma / sqrt(var + eps). None where unknown.
        """
        gamma, mapping = self._vectors.gamma, self._map
        pool = self._plan.pool
        if dgamma is None or gamma is None or dx is None or mapping is None:
            return None
        if self._valid is not None:  # gradients of parameters are of all positions
            return None
        if not (pool.samples and pool.within_channel):
            return None
        if self._normalizes_itself:
            implied = gamma * dgamma * self._plan.eps / (self._var + self._plan.eps)
            return lambda bias: implied
        implied = gamma * dgamma + mapping.scale * mapping.origin * dy.n * dy.mean
        return lambda bias: implied - bias * dx.n * dx.mean


class _NodeHook:
    """Reads a node of the norm's graph: gradients along some of its edges, and at the output."""

    def __init__(
        self, call: BackwardCall, roles: list[tuple[str, int]], output_index: int | None, view: View | None
    ) -> None:
        self.call, self.roles, self.output_index, self.view = call, roles, output_index, view

    def __call__(self, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
        if not self.call.listener.listening:
            self.call.listener.backward_missed()
            return
        with torch.no_grad():
            dy = None if self.output_index is None else held_here(outputs[self.output_index])
            if dy is not None:
                self.call.take_output(dy if self.view is None else self.view.of(dy))
            for role, position in self.roles:
                gradient = held_here(inputs[position])
                if gradient is not None:
                    self.call.take(role, gradient)


class _StreamHook:
    """The gradient of one output of the node that made the norm's input, when all of it has arrived."""

    def __init__(self, call: BackwardCall, index: int) -> None:
        self.call, self.index = call, index

    def __call__(self, outputs: Sequence[Tensor | None]) -> None:
        gradient = held_here(outputs[self.index])
        if gradient is not None and self.call.listener.listening:
            with torch.no_grad():
                self.call.take_stream(gradient)


class _ProducerHook:
    """The gradient of the weights before the norm."""

    def __init__(self, call: BackwardCall, producer: Producer) -> None:
        self.call, self.index = call, producer.index
        self.producer = replace(producer, node=None)  # a hook that holds its own node would never be freed

    def __call__(self, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor | None]) -> None:
        gradient = inputs[self.index]
        # of weights that are spread over processes each holds the products of its own outputs or inputs only
        if gradient is not None and gradient is held_here(gradient) and self.call.listener.listening:
            with torch.no_grad():
                self.call.take_weight(self.producer, gradient)


def _scaled(reading: Array, by: float) -> Array:
    """A packed reading of gradients that were `by` times as large."""
    return reading if by == 1 else packed(moments_of(reading).affine(by, 0.0), nonfinite=reading[NONFINITE])


def _energy(moments: Moments) -> Array:
    """Sum of squares."""
    return moments.m2 + moments.n * moments.mean**2


def _relative(top: Array, bottom: Array) -> Array:
    """top / bottom; NaN where bottom is 0, so that a channel without gradient violates nothing."""
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1.0), np.nan)
