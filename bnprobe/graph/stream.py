"""Which norm came before on a residual stream: x of this norm is x of that one, plus branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bnprobe.graph.graph import Node, Site
from bnprobe.graph.operations import ADD, MARK, PASS, WEIGHTS

MOST_SUMS = 8
"""Sums between two norms of a stream: attention and MLP, each with a bias of its own."""


def before_on_stream(site: Node, sites: Mapping[Site, Node]) -> Site | None:
    """The last norm before `site` whose input enters its input through sums alone; None where there is none."""
    others = {name: node for name, node in sites.items() if node is not site}
    return _last_in(_root(site.inputs[0]), others)


def before_head(outputs: Iterable[Node], sites: Mapping[Site, Node]) -> set[Site]:
    """The last norms of streams whose sum goes into weights that end the model, with no norm in between."""
    heads = [node for node in map(_root, outputs) if node.part == WEIGHTS and node.inputs]
    found = (_last_in(_root(head.inputs[0]), sites) for head in heads)
    return {site for site in found if site is not None}


def directly_after(site: Node, sites: Mapping[Site, Node]) -> Site | None:
    """The norm whose output goes into this norm as it is, and nowhere else; None where there is none."""
    node, others = site.inputs[0], {node: name for name, node in sites.items() if node is not site}
    while True:
        # what a norm computes for itself is its own affair: its site stands for that
        takers = {taker for taker in node.consumers if len(taker.inside) <= len(site.inside)}
        if len(takers) != 1:
            return None
        if node in others:
            return others[node]
        if not _hands_on(node):
            return None
        node = node.inputs[0]


def _last_in(total: Node, sites: Mapping[Site, Node]) -> Site | None:
    """The last of the norms whose input enters a sum through sums alone; None for a node that is no such sum."""
    roots = {_root(node.inputs[0]): name for name, node in sites.items()}
    waiting = [total]
    for _ in range(MOST_SUMS):
        sums = [node for node in waiting if node.part == ADD]
        waiting = [_root(term) for node in sums for term in node.inputs]
        found = [roots[node] for node in waiting if node in roots]
        if found:
            return found[0]
    return None


def _root(node: Node) -> Node:
    """Past views, and past dropout."""
    while _hands_on(node):
        node = node.inputs[0]
    return node


def _hands_on(node: Node) -> bool:
    return bool(node.inputs) and (node.part == PASS or (node.part == MARK and node.name == "dropout"))
