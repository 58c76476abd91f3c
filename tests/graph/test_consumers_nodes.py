"""The other side of a sum, and where values go, on nodes made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from bnprobe.graph.consumers import _climb, _sum_by_name, _through_views
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, MUL, OTHER, PASS, SCALE, WEIGHTS

SHAPE = (2, 4)


def node(part: str, *inputs: Node, name: str = "", **facts: Any) -> Node:
    return Node(part, name or part, SHAPE, inputs, facts=facts)


def site(*inputs: Node, name: str = "bn") -> Node:
    return node(SITE, *inputs, site=(name, 0))


def climbed(start: Node) -> tuple[list[str], list[str]]:
    found: dict[str, None] = {}
    acts: dict[str, None] = {}
    _climb(start, found, acts, lambda at: at[0])
    return list(found), list(acts)


X, GAIN = node(INPUT), node(LEAF, name="p")


@pytest.mark.parametrize(
    ("start", "found", "acts"),
    [
        (X, "input", []),
        (site(X), "bn", []),
        (node(PASS, site(X)), "bn", []),
        (node(ACTIVATION, node(PASS, site(X)), name="relu"), "bn", ["relu"]),
        (node(SCALE, site(X), name="scale"), "bn", ["scale"]),
        (node(OTHER, site(X), name="avg_pool"), "bn", ["avg_pool"]),
        (node(MUL, site(X), GAIN, name="mul"), "bn", ["mul"]),
        (node(MUL, GAIN, site(X), name="mul"), "bn", ["mul"]),
        (node(MUL, site(X), node(WEIGHTS, X, layer="fc"), name="mul"), "mul", []),  # a gate
        (node(WEIGHTS, X, name="conv", layer="conv1"), "conv1", []),
        (node(WEIGHTS, X, name="conv", layer=""), "conv", []),
        (node(ADD, site(X), X), "sum at bn", []),
        (node(OTHER, site(X), name="fft"), "fft", []),
        (node(LEAF, name="x"), "x", []),
        (Node(LEAF, "", SHAPE, facts={"name": "pos"}), "pos", []),
        (Node(LEAF, "", SHAPE), "unknown", []),
    ],
)
def test_what_made_the_other_side_of_a_sum(start: Node, found: str, acts: list[str]) -> None:
    """Fails if a gate is a factor, a factor hides a norm, or what acts on the way is not told."""
    assert climbed(start) == ([found], acts)


def test_a_sum_is_called_by_the_first_norm_that_enters_it() -> None:
    """Fails if a view hides a norm, or one behind other operations counts."""
    behind = node(ACTIVATION, site(X, name="far"))
    assert (
        _sum_by_name(node(ADD, behind, node(PASS, node(PASS, site(X, name="near")))), lambda at: at[0])
        == "sum at near"
    )
    assert _sum_by_name(node(ADD, behind, X), lambda at: at[0]) == "sum"


def test_values_go_on_through_views() -> None:
    """Fails if a view of a view is missed, or an operation that makes new values is followed."""
    start = site(X)
    first = node(PASS, start)
    second = node(MARK, first)
    again = node(PASS, first, second)
    node(ACTIVATION, second)
    assert _through_views(start) == {start, first, second, again}
