"""Who reads a norm's channels, where a channel that is always 0 after the activation can be taken out of all of them.

That is where every reader is a convolution or linear layer, behind a ReLU and operations that leave a channel of zeros one
of zeros: such a channel adds nothing to any output, at borders padded with zeros either.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from bnprobe.graph.foldable import is_own
from bnprobe.graph.graph import Node
from bnprobe.graph.operations import ACTIVATION, ADD, MUL, PASS, WEIGHTS
from bnprobe.graph.record_op import Graph

GATES = ("relu", "relu6")
"""Activations whose output is 0 wherever their input is not positive."""
SAME = {"alias", "detach", "clone", "contiguous", "_to_copy", "dropout", "native_dropout", "feature_dropout"}
FLAT = {"view", "_unsafe_view", "reshape", "_reshape_alias", "flatten"}


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels; in a linear layer behind a flattening each has so many columns."""

    layer: str
    columns: int = 1


class InTheWay(Exception):
    """Why a channel cannot be taken out, in words."""


def readers_of(norm: str, graph: Graph) -> tuple[Reader, ...]:
    """Every layer that reads this norm's channels.

    Raises:
        InTheWay: Something else reads them, or reads them before the activation.
    """
    sites = [node for (name, _), node in graph.sites.items() if name == norm]
    if len(sites) != 1:
        raise InTheWay("it is called several times in a pass" if sites else "no values reached it")
    found: dict[Node, int] = {}
    _walk(sites[0], sites[0].shape[1], 1, False, graph, found)
    if not found:
        raise InTheWay("nothing reads its output")
    layers = {node.facts["layer"] for node in found}
    for call in graph.weighted:
        layer = call.facts["layer"]
        if layer not in layers:
            continue
        if call not in found:
            raise InTheWay(f"{layer} also reads other values")
        if not layer or not is_own(call.facts["weight_node"], f"{layer}.weight", graph):
            raise InTheWay(f"the weight of {layer or 'what reads it'} is computed in each pass, or shared")
    return tuple(dict.fromkeys(Reader(node.facts["layer"], columns) for node, columns in found.items()))


def _walk(node: Node, c: int, columns: int, gated: bool, graph: Graph, found: dict[Node, int]) -> None:
    """From values whose dimension 1 holds c channels, `columns` entries each, to all that take them."""
    if node in graph.outputs:
        raise InTheWay("its output is an output of the model")
    for taker in node.consumers:
        if taker.name == "aside" and not taker.consumers:
            continue  # the places of a maximum, which nobody asks for
        if taker.part == WEIGHTS and taker.inputs[0] is node and gated:
            geometry = taker.facts["geometry"]
            n = len(geometry.stride)
            if geometry.groups != 1 or geometry.transposed or len(node.shape) != n + 2:
                raise InTheWay(
                    f"{taker.facts['layer']}, which reads it, is grouped, transposed or reads tokens"
                )
            found[taker] = columns
        elif taker.part == ACTIVATION and taker.name in GATES:
            _walk(taker, c, columns, True, graph, found)
        elif (_keeps_zeros(taker, node, c) and columns == 1) or (
            taker.name in SAME and taker.shape == node.shape
        ):
            _walk(taker, c, columns, gated, graph, found)
        elif taker.name in FLAT and taker.shape == (node.shape[0], prod(node.shape[1:])):
            _walk(taker, c, columns * prod(node.shape[2:]), gated, graph, found)
        else:
            raise InTheWay(f"its output enters {_words(taker)}{'' if gated else ' before a ReLU'}")


def _keeps_zeros(taker: Node, node: Node, c: int) -> bool:
    """Whether this pools positions and leaves the channels where they are."""
    if (
        taker.name not in ("max_pool", "avg_pool")
        or len(node.shape) != 4
        or taker.shape[:2] != (node.shape[0], c)
    ):
        return False
    if taker.facts.get("operation") in ("mean", "amax"):
        dims = taker.facts["args"][1] if len(taker.facts["args"]) > 1 else ()
        dims = dims if isinstance(dims, tuple) else (dims,)
        return bool(dims) and all(isinstance(d, int) and d % 4 in (2, 3) for d in dims)
    return len(taker.shape) == 4


def _words(taker: Node) -> str:
    named = {ADD: "a sum", MUL: "a product", WEIGHTS: "a layer with weights", PASS: taker.name}
    return named.get(taker.part, {"cat": "a concatenation"}.get(taker.name, taker.name))
