"""Pooling that leaves channels where they are, on nodes made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bnprobe.graph.graph import Node
from bnprobe.graph.operations import OTHER
from bnprobe.graph.removable import _keeps_zeros

X = Node(OTHER, "relu", (2, 3, 5, 5))


def pool(
    name: str = "avg_pool",
    shape: tuple[int, ...] = (2, 3),
    operation: str = "mean",
    args: Any = (None, (2, 3)),
) -> Node:
    return Node(OTHER, name, shape, facts={"operation": operation, "args": args})


@pytest.mark.parametrize(
    ("taker", "keeps"),
    [
        (pool(), True),
        (pool(args=(None, (-1, -2))), True),
        (pool(args=(None, 3), shape=(2, 3, 5)), True),
        (pool("max_pool", operation="amax"), True),
        (pool(args=(None, (1, 2))), False),
        (pool(args=(None, (2, -4))), False),
        (pool(args=(None, ())), False),
        (pool(args=(None, None)), False),
        (pool(args=(None,)), False),
        (pool("add"), False),
        (pool(shape=(2, 4)), False),
        (pool(shape=(1, 3)), False),
        (pool(shape=(2, 3, 2, 2), operation="avg_pool2d", args=(None, 2)), True),
        (pool(shape=(2, 3, 4), operation="avg_pool2d", args=(None, 2)), False),
    ],
)
def test_pooling_over_positions(taker: Node, keeps: bool) -> None:
    """Fails if a mean over channels or samples is one over positions, or one over all dimensions is."""
    assert _keeps_zeros(taker, X, 3) is keeps
    assert _keeps_zeros(taker, Node(OTHER, "relu", (2, 3, 25)), 3) is False
