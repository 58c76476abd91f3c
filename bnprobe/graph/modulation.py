"""What modulates a norm: what its output is multiplied by, what is added to it, and the gate of the branch that it begins.

As in adaLN, where one linear layer makes all three of the timestep; and in a UNet whose group norms are scaled and shifted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bnprobe.graph.graph import Node, Site
from bnprobe.graph.made import Made
from bnprobe.graph.operations import ADD, MARK, MUL, PASS
from bnprobe.graph.record_op import Graph
from bnprobe.graph.role import skip_of
from bnprobe.stats.moments import Array
from bnprobe.stats.timesteps import GATE, SCALE, SHIFT

MOST_STEPS = 2000
"""Nodes walked from a norm to the end of its branch."""

Layer = tuple[str, int]
"""The path of the layer that makes a modulation, and the number of its call in the pass."""


@dataclass(frozen=True, eq=False)
class Modulation:
    """One part, shape (C,) for each sample: `factor` times the `columns` (C,) of what a layer makes, plus `constant` (C,).

    That holds while the `parameters` in the constant, if any, are as they were: `copies`.
    """

    layer: Layer
    n_made: int
    columns: NDArray[np.int64]
    factor: float
    constant: Array
    parameters: tuple[Tensor, ...]
    copies: tuple[Tensor, ...]

    @property
    def holds(self) -> bool:
        """Whether the constant is still what the model adds."""
        return all(torch.equal(now, then) for now, then in zip(self.parameters, self.copies, strict=True))


@dataclass(frozen=True)
class Modulations:
    """Of the norms of a watched pass: the parts by their names, and what the layers that make them made in it."""

    parts: dict[Site, dict[str, Modulation]]
    made: dict[Layer, Tensor]


def modulations_of(graph: Graph | None, wanted: Iterable[tuple[Site, int]]) -> Modulations:
    """What modulates the `wanted` norms, each with its number of channels."""
    found = Modulations({}, {})
    if graph is None:
        return found
    calls = _calls(graph)
    for name, n_channels in wanted:
        parts = {} if name not in graph.sites else _met_by(graph.sites[name])
        for part, made in parts.items():
            one = _modulation(made, calls[made.source], n_channels)
            if one is not None:
                found.parts.setdefault(name, {})[part] = one
                found.made[one.layer] = made.source.facts["made"]
    return found


def _calls(graph: Graph) -> dict[Node, Layer]:
    """Each call of weights by the path of its layer, and its number."""
    seen: dict[str, int] = {}
    calls = {}
    for node in graph.weighted:
        path = str(node.facts["layer"])
        calls[node] = path, seen.get(path, 0)
        seen[path] = seen.get(path, 0) + 1
    return calls


def _modulation(made: Made, layer: Layer, n_channels: int) -> Modulation | None:
    """As columns of the layer's output; None where samples do not have one value for each channel, or one for all."""
    output = made.source.facts["made"]
    n_rows, n_made = output.shape
    if not layer[0] or made.index.numel() not in (n_rows * n_channels, n_rows):
        return None
    index, constant = (part.reshape(n_rows, -1) for part in (made.index, made.constant))
    columns = index[0] % n_made
    if not torch.equal(index, torch.arange(n_rows)[:, None] * n_made + columns):
        return None
    if not torch.equal(constant, constant[:1].expand_as(constant)):
        return None
    return Modulation(
        layer,
        n_made,
        columns.expand(n_channels).numpy() if len(columns) == 1 else columns.numpy(),
        made.factor,
        constant[0].expand(n_channels).numpy() if constant.shape[1] == 1 else constant[0].numpy(),
        made.parameters,
        tuple(one.detach().clone() for one in made.parameters),
    )


def _met_by(site: Node) -> dict[str, Made]:
    """What its output meets: scale, shift and gate; of several the first."""
    parts: dict[str, Made] = {}
    end = site
    while SHIFT not in parts:
        found = _next(end, site, SCALE not in parts)
        if found is None:
            break
        end, met = found
        parts |= met
    gate = _gate(end, site, {made.source for made in parts.values()})
    return parts if gate is None else {**parts, GATE: gate}


def _next(node: Node, site: Node, may_scale: bool) -> tuple[Node, dict[str, Made]] | None:
    """The first operation that multiplies the values of a node, or adds to them, what a layer made; past views."""
    same = [node]
    for one in same:
        for taker in one.consumers:
            if len(taker.inside) > len(site.inside) or taker in same:
                continue
            if taker.part == PASS or (taker.part == MARK and taker.name == "dropout"):
                same.append(taker)
                continue
            others = [source for source in taker.inputs if source is not one]
            if taker.facts.get("operation") == "addcmul" and len(others) == 2 and may_scale:
                added, factor = (other.made for other in others)
                if added is not None and factor is not None and taker.inputs[0] is others[0]:
                    return taker, {SHIFT: added, SCALE: factor}
            elif len(others) == 1 and others[0].made is not None:
                if taker.part == MUL and may_scale:
                    return taker, {SCALE: others[0].made}
                if taker.part == ADD and not taker.facts["kwargs"]:
                    return taker, {SHIFT: others[0].made}
    return None


def _gate(end: Node, site: Node, sources: set[Node]) -> Made | None:
    """What one of these layers made and multiplies a branch that begins here by, just before it is added to the stream."""
    waiting, met = deque([end]), {end}
    for _ in range(MOST_STEPS if sources else 0):
        if not waiting:
            return None
        node = waiting.popleft()
        for taker in node.consumers:
            if len(taker.inside) > len(site.inside) or taker in met:
                continue
            met.add(taker)
            if taker.part == ADD and skip_of(taker) is not None:
                continue
            inputs: list[Made | None] = [one.made for one in taker.inputs]
            gates = [made for made in inputs if made is not None and made.source in sources]
            if taker.part == MUL and len(gates) == 1 and _enters_sum(taker):
                return gates[0]
            waiting.append(taker)
    return None


def _enters_sum(product: Node) -> bool:
    """Whether a product is a term of a sum of a residual stream, past views and dropout."""
    waiting = [product]
    for node in waiting:
        for taker in node.consumers:
            if taker.part == ADD and skip_of(taker) is not None:
                return True
            if taker.part == PASS or (taker.part == MARK and taker.name == "dropout"):
                waiting.append(taker)
    return False
