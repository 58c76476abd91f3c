"""Which norm came before on a residual stream: x of this norm is x of that one, plus branches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bnprobe.graph.graph import Node, Site
from bnprobe.graph.operations import ADD, MARK, PASS, WEIGHTS

MOST_SUMS = 8
"""Sums between two norms of a stream: attention and MLP, each with a bias of its own."""


class Streams:
    """The norms of one pass by their outputs, and by what their inputs are past views: looked up, not sought per norm."""

    def __init__(self, sites: Mapping[Site, Node]) -> None:
        self._at = {node: name for name, node in sites.items()}
        # of several norms of one input the last one stands for them
        self._taking = {_root(node.inputs[0]): name for name, node in sites.items()}

    def before(self, site: Node) -> Site | None:
        """The last norm before `site` whose input enters its input through sums alone; None where there is none."""
        return self._last_in(_root(site.inputs[0]))

    def before_head(self, outputs: Iterable[Node]) -> set[Site]:
        """The last norms of streams whose sum goes into weights that end the model, with no norm in between."""
        heads = [node for node in map(_root, outputs) if node.part == WEIGHTS and node.inputs]
        found = (self._last_in(total) for head in heads for total in _pooled(head.inputs[0]))
        return {site for site in found if site is not None}

    def directly_after(self, site: Node) -> Site | None:
        """The norm whose output goes into this norm as it is, and nowhere else; None where there is none."""
        node = site.inputs[0]
        while True:
            # what a norm computes for itself is its own affair: its site stands for that
            takers = {taker for taker in node.consumers if len(taker.inside) <= len(site.inside)}
            if len(takers) != 1:
                return None
            if node in self._at:
                return self._at[node]
            if not _hands_on(node):
                return None
            node = node.inputs[0]

    def _last_in(self, total: Node) -> Site | None:
        """The last of the norms whose input enters a sum through sums alone; None for a node that is no such sum."""
        waiting = [total]
        for _ in range(MOST_SUMS):
            sums = [node for node in waiting if node.part == ADD]
            waiting = [_root(term) for node in sums for term in node.inputs]
            found = [self._taking[node] for node in waiting if node in self._taking]
            if found:
                return found[0]
        return None


def _pooled(node: Node) -> list[Node]:
    """What a head is given, before positions were averaged, and before the class token was put beside their average."""
    node = _root(node)
    while node.name == "avg_pool":
        node = _root(node.inputs[0])
    if node.part == MARK and node.name == "cat":
        return [one for part in node.inputs for one in _pooled(part)]
    return [node]


def _root(node: Node) -> Node:
    """Past views, and past dropout."""
    while _hands_on(node):
        node = node.inputs[0]
    return node


def _hands_on(node: Node) -> bool:
    return bool(node.inputs) and (node.part == PASS or (node.part == MARK and node.name == "dropout"))
