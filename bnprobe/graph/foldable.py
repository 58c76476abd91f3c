"""Which layer a norm can be folded into: one whose every output goes into this norm, and nowhere else.

Folding writes other weights and another bias into that layer, so both must be its own, read by its own operation only,
and as they are: weights that are computed in the pass (standardized, parametrized, quantized) would be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bnprobe.graph.graph import INPUT, LEAF, PARTS, SITE, Node, Site
from bnprobe.graph.operations import ACTIVATION, ADD, PASS, WEIGHTS
from bnprobe.graph.producer import Known
from bnprobe.graph.record_op import Graph
from bnprobe.graph.sole_consumer import adds_own_bias, goes_only_to, made_by

AS_IT_IS = {
    *(
        "t",
        "transpose",
        "numpy_T",
        "mT",
        "permute",
        "detach",
        "alias",
        "_to_copy",
        "to",
        "clone",
        "contiguous",
    ),
    *("view", "view_as", "unsqueeze"),
}
"""Operations between a weight and the one that uses it which leave its values as they are."""


class Feeder(NamedTuple):
    """The path of the layer that feeds a norm alone, "" where there is none; then `why` says what is in the way."""

    layer: str
    why: str = ""


def feeder_of(norm: str, graph: Graph, norms: Mapping[Site, Known]) -> Feeder:
    """The layer into which the norm at this path can be folded, judged by all of its calls in the pass."""
    sites = [node for (name, _), node in graph.sites.items() if name == norm]
    if not sites:
        return Feeder("", "no values reached it")
    made = [made_by(site, norms) for site in sites]
    found = [node for node in made if node is not None]
    if len(found) < len(made):
        return Feeder("", _what_instead(sites[made.index(None)].inputs[0]))
    layers = {node.facts["layer"] for node in found}
    if len(layers) > 1 or "" in layers:
        return Feeder("", "what feeds it differs from call to call, or is no module")
    layer = layers.pop()
    return Feeder("", _in_the_way(norm, layer, graph)) if _in_the_way(norm, layer, graph) else Feeder(layer)


def _in_the_way(norm: str, layer: str, graph: Graph) -> str:
    """Why other weights in this layer would not be the norm; "" where they would."""
    calls = [node for node in graph.weighted if node.facts["layer"] == layer]
    if not all(is_own(call.facts["weight_node"], f"{layer}.weight", graph) for call in calls):
        return f"the weight of {layer} is computed in each pass, or shared with another module"
    if not all(call.facts["bias"] is None or adds_own_bias(call, graph) for call in calls):
        return f"the bias of {layer} is computed, shared, or read elsewhere"
    if not all(goes_only_to(norm, call, graph.outputs) for call in calls):
        return f"the output of {layer} is used elsewhere, too"
    return ""


def is_own(weight: Node, name: str, graph: Graph) -> bool:
    """Whether a weight is the parameter of this name as it is, and no other module's."""
    while weight.part == PASS and weight.name in AS_IT_IS and weight.inputs:
        weight = weight.inputs[0]
    if weight.part != LEAF or weight.facts.get("name") != name:
        return False
    return id(weight.facts["tensor"]) not in graph.shared and not _takers(weight)


def _takers(weight: Node) -> list[Node]:
    """Operations that use a weight as values; one that multiplies by it is none."""
    found: list[Node] = []
    waiting = [weight]
    while waiting:
        for taker in waiting.pop().consumers:
            (waiting if taker.part == PASS and taker.name in AS_IT_IS else found).append(taker)
    return found


def _what_instead(node: Node) -> str:
    """What a norm reads that is not the output of a layer with weights, in words."""
    while node.part == PASS and node.inputs:
        node = node.inputs[0]
    if node.part == WEIGHTS:
        return "between the layer before it and the norm, channels are moved, cut or padded"
    words = {
        INPUT: "the model's input",
        ADD: "a sum",
        SITE: "another norm",
        PARTS: "values that were overwritten in part",
        LEAF: "a constant",
    }
    what = words.get(node.part) or (
        f"the output of {node.name}"
        if node.part == ACTIVATION
        else {"cat": "a concatenation"}.get(node.name, node.name)
    )
    return f"it reads {what}, not the output of a convolution or linear layer"
