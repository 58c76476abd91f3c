"""Whether a layer and a norm have only each other, so that the layer's bias is a shift which the norm takes out.

A bias of c_k at every position of channel k, and nothing else, must reach the norm: then (h + c) - (mean + c) is
h - mean, and the running mean can take c over. That is no longer so where the layer's output is also used
elsewhere, where zeros are put around it, or where the norm is also called with something else.
"""

from __future__ import annotations

from collections.abc import Mapping

from bnprobe.graph.graph import LEAF, SITE, Node, Site
from bnprobe.graph.operations import NORM, PASS, VIEWS, WEIGHTS
from bnprobe.graph.producer import Known, dim_before
from bnprobe.graph.record_op import Graph

KEEPS = VIEWS - {
    *("constant_pad_nd", "pad", "copy", "repeat", "tile", "unfold", "im2col", "as_strided", "diagonal"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "real", "_conj"),
    *("lift", "lift_fresh", "lift_fresh_copy", "adjoint", "movedim", "moveaxis"),
}
"""Views, copies and casts whose output holds values of the input and no others, channel by channel."""


def feeds_alone(site: Node, graph: Graph, alive: set[Node], norms: Mapping[Site, Known]) -> bool:
    """Whether everything that the producer's calls output goes into this norm unchanged, and nothing else does.

    The producer must add a parameter `bias` of its own in the operation of its weights, and nothing else may read it.
    `alive` holds what goes into the model's output.
    """
    norm = site.facts["site"][0]
    behind = [made_by(node, norms) for (name, _), node in graph.sites.items() if name == norm]
    known = [made for made in behind if made is not None]
    if site not in alive or len(known) < len(behind) or not _has_own_running_statistics(site, graph, norms):
        return False
    producer = known[0].facts["layer"]
    if any(made.facts["layer"] != producer or not adds_own_bias(made, graph) for made in known):
        return False
    calls = [node for node in graph.weighted if node.facts["layer"] == producer]
    return all(goes_only_to(norm, call, graph.outputs) for call in calls)


def made_by(site: Node, norms: Mapping[Site, Known]) -> Node | None:
    """The call of weights whose output channels are the norm's, each whole and as it was made."""
    known, node = norms.get(site.facts["site"]), site.inputs[0]
    dim = known.channel_dim(len(site.shape)) if known else None
    n_channels = None if dim is None else site.shape[dim]
    while node.part == PASS and node.name in KEEPS and node.inputs:
        dim, node = dim_before(node, dim), node.inputs[0]
        if dim is None or node.shape[dim] != n_channels:
            return None
    if node.part != WEIGHTS or dim is None:
        return None
    return node if dim == len(node.shape) - 1 - len(node.facts["geometry"].stride) else None


def _has_own_running_statistics(site: Node, graph: Graph, norms: Mapping[Site, Known]) -> bool:
    """Whether no other norm reads the running mean."""
    norm, call = site.facts["site"]
    mean = norms[norm, call].plan.running_mean
    if mean is None:
        return True
    readers = graph.node_of(mean).consumers
    return id(mean) not in graph.shared and all(_is_within(norm, reader) for reader in readers)


def _is_within(norm: str, node: Node) -> bool:
    return any(name == norm for name, _ in node.inside)


def adds_own_bias(call: Node, graph: Graph) -> bool:
    """Whether the bias is the layer's parameter of that name, no other module's, and read by its operation alone."""
    node: Node | None = call.facts["bias_node"]
    while node is not None and node.part == PASS and node.inputs:
        node = node.inputs[0]
    own = f"{call.facts['layer']}.bias"
    if node is None or node.part != LEAF or node.facts.get("name") != own or len(node.shape) != 1:
        return False
    if id(node.facts["tensor"]) in graph.shared:
        return False
    waiting = [node]
    while waiting:  # an operation of weights is no consumer of its bias
        takers = waiting.pop().consumers
        if any(taker.part != PASS for taker in takers):
            return False
        waiting.extend(takers)
    return True


def goes_only_to(norm: str, call: Node, outputs: list[Node]) -> bool:
    """Whether the norm, and nobody else, takes all of these values."""
    waiting = [call]
    while waiting:
        node = waiting.pop()
        if node in outputs or not node.consumers:
            return False
        within = [taker for taker in node.consumers if _is_within(norm, taker)]
        parts = {taker.part for taker in within if taker.name != "aside"} - {PASS}
        if NORM in parts and len(parts) > 1:
            return False  # a class of norm that adds its input again, for example
        for taker in node.consumers:
            if taker in within:
                continue
            if taker.part == SITE and taker.facts["site"][0] == norm:
                continue
            if taker.part != PASS:
                return False
            waiting.append(taker)
    return True
