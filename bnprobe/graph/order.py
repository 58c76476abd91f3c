"""Tokens in another order: models that sort a batch by length, or turn sequences around, before their norms.

Masks and positions are those that the model was given. Where operations of a watched pass put tokens elsewhere and not back,
they belong to other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from bnprobe.graph.graph import INPUT, Node, Site
from bnprobe.graph.moves import Sizes, given
from bnprobe.graph.record_op import Graph


def out_of_order(graph: Graph | None, sites: Iterable[Site]) -> tuple[set[Site], bool]:
    """The norms whose tokens stand elsewhere than the model was given them, and whether that cannot be said yet: where what
    is moved stayed in its place in this pass, as in a batch that was sorted before."""
    if graph is None or graph.tokens is None or not graph.moved:
        return set(), False
    first = given(graph.tokens)
    orders = _Orders(graph.tokens)
    known = {site: graph.sites[site] for site in sites if site in graph.sites}
    found = {
        site
        for site, node in known.items()
        if _has_tokens(node.shape, graph.tokens) and not orders.is_given(node.inputs[0])
    }
    return found, all(torch.equal(node.facts["order"], first) for node in graph.moved)


def _has_tokens(shape: tuple[int, ...], tokens: Sizes) -> bool:
    """Whether an input has the tokens, in any layout."""
    n, t = tokens
    return shape[:2] in ((n, t), (t, n)) or shape[0] == n * t or (shape[0] == n and t in shape[1:-1])


class _Orders:
    """The order of tokens at each node, (N, T) numbers; None where nothing that has tokens goes in."""

    def __init__(self, tokens: Sizes) -> None:
        self._tokens, self._first = tokens, given(tokens)
        self._known: dict[Node, tuple[Tensor, ...]] = {}

    def is_given(self, node: Node) -> bool:
        """Whether the tokens of a node stand as they were given."""
        return all(torch.equal(order, self._first) for order in self._of(node))

    def _of(self, node: Node) -> tuple[Tensor, ...]:
        """The orders that meet in a node: one, unless the model adds tokens to other ones."""
        waiting = [node]
        while waiting:
            now = waiting[-1]
            missing = [one for one in now.inputs if one not in self._known]
            if missing and now not in self._known:
                waiting.extend(missing)
                continue
            waiting.pop()
            if now not in self._known:
                self._known[now] = tuple(self._distinct(now))
        return self._known[node]

    def _distinct(self, node: Node) -> Iterator[Tensor]:
        """Lengths of sequences, and what says where tokens are moved, is no token."""
        if node.part == INPUT and node.shape[:2] in (self._tokens, self._tokens[::-1]):
            yield self._first
        met: list[Tensor] = []
        for source in node.inputs[:1] if "order" in node.facts else node.inputs:
            if len(source.shape) < 2 or source.shape[-1] == 1:
                continue
            for order in self._known[source]:
                moved = order.reshape(-1)[node.facts["order"]] if "order" in node.facts else order
                if not any(torch.equal(moved, one) for one in met):
                    met.append(moved)
                    yield moved
