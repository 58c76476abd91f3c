"""Whether the layers around a norm have their features in another dimension than the one it keeps statistics for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from bnprobe.graph.graph import LEAF, SITE, Node, Site
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, PASS, WEIGHTS
from bnprobe.graph.producer import DEEPEST, Known, dim_before
from bnprobe.norms import LAST

ROWS = 2
"""Dimensions of (samples, features), which an instance norm takes for those of a single sample: (channels, positions)."""

SEQUENCES = 3
"""Dimensions of (samples, positions, features). With more, a linear layer on the last one is often meant."""

MOST_STEPS = 200
"""Nodes walked behind a norm."""

IN_THE_LAST = {
    "recurrent": "recurrent",
    "mkldnn_rnn_layer": "recurrent",
    "cudnn_rnn": "recurrent",
    "miopen_rnn": "recurrent",
    "embedding": "embedding",
}
"""Operations that have features in the last dimension, whatever their shapes, by what they are called in a sentence."""


def features_elsewhere(site: Node, norms: Mapping[Site, Known]) -> str:
    """What is before and after a batch norm over sequences, a norm over the last dimension, or an instance norm of rows,
    where its features are not the norm's channels.

    "recurrent before, linear after", or one of the two where nothing is known of the other; "" where a neighbor has its
    features where the norm has its channels, or no neighbor is known.
    """
    known, n_dims = norms.get(site.facts["site"]), len(site.shape)
    if known is None:
        return ""
    dim = known.channel_dim(n_dims)
    if known.plan.channels == LAST:
        # convolutions have their features in dimension 1; where that is as large as the last, a mistake raises no error
        if dim is None or site.shape[-1] not in site.shape[1:-1]:
            return ""
        made = _made(site.inputs[0], dim, 1, norms)
    elif n_dims == SEQUENCES and known.plan.pool.samples:
        made = _made(site.inputs[0], dim, SEQUENCES - 1, norms)
    elif n_dims == known.plan.unbatched_dims == ROWS:
        made = _made(site.inputs[0], dim, ROWS - 1, norms)
    else:
        return ""
    found = [(f"{name} before", fits) for name, fits in ([made] if made else [])]
    found += [(f"{name} after", fits) for name, fits in _taken(site, dim, norms)]
    return "" if any(fits for _, fits in found) else ", ".join(dict.fromkeys(name for name, _ in found))


Neighbor = tuple[str, bool]
"""The name of an operation, and whether it has its features where the norm has its channels."""


def _made(
    node: Node, dim: int | None, last: int | None, norms: Mapping[Site, Known], depth: int = 0
) -> Neighbor | None:
    """What made these values, of which `dim` is where the norm's channels are, and `last` its last dimension.

    A linear layer sees samples and positions joined: then `last` is what is left to know.
    """
    while node.part == PASS or _keeps_places(node):
        if not node.inputs:
            return None
        if node.part == PASS:
            dim, last = dim_before(node, dim), dim_before(node, last)
        node = node.inputs[0]
    if node.part == ADD and depth < DEEPEST:
        terms = [term for term in node.inputs if term.part != LEAF and term.shape == node.shape]
        found = (_made(term, dim, last, norms, depth + 1) for term in terms)
        return next((one for one in found if one), None)
    feature = _feature(node, len(node.shape), norms)
    if feature is None or feature[1] not in (dim, last):
        return None
    return feature[0], feature[1] == dim


def _taken(site: Node, dim: int | None, norms: Mapping[Site, Known]) -> Iterator[Neighbor]:
    """What takes the norm's values, past activations and sums."""
    waiting: list[tuple[Node, ...]] = [(site,)]
    steps = 0
    while waiting and steps < MOST_STEPS:
        path, steps = waiting.pop(0), steps + 1
        for taker in path[-1].consumers:
            adds = taker.part == ADD and taker.shape == path[-1].shape
            if taker.part == PASS or adds or _keeps_places(taker):
                waiting.append((*path, taker))
                continue
            feature = _feature(taker, len(path[-1].shape), norms) if taker.inputs[0] is path[-1] else None
            at = None if feature is None else _at_the_norm(feature[1], path)
            if feature is not None and at is not None:
                yield feature[0], at == dim


def _at_the_norm(dim: int | None, path: tuple[Node, ...]) -> int | None:
    """Where a dimension of the last node stood at the first."""
    for node in reversed(path[1:]):
        dim = dim_before(node, dim) if node.part == PASS else dim
    return dim


def _keeps_places(node: Node) -> bool:
    return node.part == ACTIVATION or (node.part == MARK and node.name == "dropout")


def _feature(node: Node, n: int, norms: Mapping[Site, Known]) -> tuple[str, int] | None:
    """The name of the operation and where it has features, in values of `n` dimensions; None for others."""
    if node.part == WEIGHTS:
        return node.name, n - 1 - len(node.facts["geometry"].stride)
    if node.name in IN_THE_LAST:
        return IN_THE_LAST[node.name], n - 1
    if _are_steps(node):
        return "recurrent", n - 1
    if node.part == SITE:
        known = norms.get(node.facts["site"])
        if known is not None and known.plan.channels == LAST and known.plan.n_channel_dims == 1:
            return "norm", n - 1
    return None


def _are_steps(node: Node) -> bool:
    """Whether these are steps of which each is made of the one before, put side by side: a GRU outside a GPU, and cells in a
    loop. Both directions of a layer are joined in their features."""
    if node.part != MARK or node.name != "cat" or len(node.inputs) < 2:
        return False
    if len(node.inputs[0].shape) == len(node.shape):
        return node.facts["dim"] in (-1, len(node.shape) - 1) and all(map(_are_steps, node.inputs))
    first, second = (_past_views(step) for step in node.inputs[:2])
    stacked_last = node.facts["dim"] in (-1, len(node.shape) - 1)
    return not stacked_last and (_leads_to(first, second) or _leads_to(second, first))


def _past_views(node: Node) -> Node:
    while node.part == PASS and node.inputs:
        node = node.inputs[0]
    return node


def _leads_to(first: Node, second: Node) -> bool:
    """Whether the first is one of what the second was made of, a few steps back."""
    waiting, met = deque([second]), {second}
    while waiting and len(met) < MOST_STEPS:
        for node in waiting.popleft().inputs:
            if node is first:
                return True
            if node not in met:
                met.add(node)
                waiting.append(node)
    return False
