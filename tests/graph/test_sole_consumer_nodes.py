"""Who takes a layer's values, and whose its bias is, on graphs of a few nodes made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bnprobe.graph.graph import LEAF, SITE, Node
from bnprobe.graph.operations import ADD, NORM, OTHER, PASS, WEIGHTS
from bnprobe.graph.producer import Known
from bnprobe.graph.record_op import Graph
from bnprobe.graph.sole_consumer import _has_own_running_statistics, adds_own_bias, goes_only_to
from bnprobe.norms import NormLayer

SHAPE = (2, 4, 5, 5)
INSIDE = (("bn", 0),)


def conv(**facts: Any) -> Node:
    return Node(WEIGHTS, "conv", SHAPE, facts=facts)


def site(x: Node, name: str = "bn") -> Node:
    return Node(SITE, "norm", SHAPE, (x,), facts={"site": (name, 0)})


def view(x: Node, **fields: Any) -> Node:
    return Node(PASS, "view", SHAPE, (x,), **fields)


def own(part: str, x: Node, name: str = "") -> Node:
    """An operation of the norm itself."""
    return Node(part, name or part, SHAPE, (x,), INSIDE)


def only_the_norm(x: Node) -> None:
    site(x)


def through_a_view(x: Node) -> None:
    site(view(x))


def with_its_own_operations(x: Node) -> None:
    own(NORM, x)
    own(OTHER, x, "aside")
    own(PASS, x)
    site(x)


def by_hand_inside(x: Node) -> None:
    own(ADD, x)
    site(x)


def also_elsewhere(x: Node) -> None:
    site(x)
    Node(OTHER, "relu", SHAPE, (x,))


def another_norm(x: Node) -> None:
    site(x, "bn2")


def a_view_that_nobody_takes(x: Node) -> None:
    site(x)
    view(x)


def added_again_inside(x: Node) -> None:
    own(NORM, x)
    own(ADD, x)
    site(x)


def nobody(x: Node) -> None:
    pass


@pytest.mark.parametrize(
    ("build", "alone"),
    [
        (only_the_norm, True),
        (through_a_view, True),
        (with_its_own_operations, True),
        (by_hand_inside, True),
        (also_elsewhere, False),
        (another_norm, False),
        (a_view_that_nobody_takes, False),
        (added_again_inside, False),
        (nobody, False),
    ],
)
def test_values_that_only_a_norm_takes(build: Any, alone: bool) -> None:
    """Fails if another taker goes unseen, or what a norm does inside itself is held against it."""
    call = conv()
    build(call)
    assert goes_only_to("bn", call, []) is alone
    assert goes_only_to("bn", call, [call]) is False


def leaf(name: str = "c.bias", shape: tuple[int, ...] = (4,)) -> Node:
    return Node(LEAF, "", shape, facts={"name": name, "tensor": torch.zeros(shape)})


def bias_of(node: Node | None, shared: bool = False) -> bool:
    of = node.inputs[0] if node is not None and node.inputs else node
    ids = frozenset({id(of.facts["tensor"])}) if shared and of is not None else frozenset()
    return adds_own_bias(conv(bias_node=node, layer="c"), Graph({}, ids))


def test_a_bias_of_its_own() -> None:
    """Fails if another layer's, a shared one, one of another shape, or none is its own, or a cast hides it."""
    assert bias_of(leaf())
    assert bias_of(view(leaf()))
    assert not bias_of(None)
    assert not bias_of(leaf("d.bias"))
    assert not bias_of(leaf(shape=(1, 4)))
    assert not bias_of(leaf(), shared=True)
    assert not bias_of(Node(OTHER, "mul", (4,), facts={"name": "c.bias", "tensor": torch.zeros(4)}))


def test_a_bias_that_something_else_reads() -> None:
    """Fails if a second reader goes unseen, behind a view as well, or a view that leads nowhere is one."""
    read, viewed, idle = leaf(), leaf(), leaf()
    Node(OTHER, "sum", (), (read,))
    Node(OTHER, "sum", (), (view(viewed),))
    view(view(idle))
    assert not bias_of(read)
    assert not bias_of(viewed)
    assert bias_of(idle)


@pytest.mark.parametrize(
    ("shared", "reader", "own"),
    [
        (False, None, True),
        (True, None, False),
        (False, "bn", True),
        (False, "bn2", False),
        (False, "", False),
        (True, "bn", False),
    ],
)
def test_a_running_mean_of_its_own(shared: bool, reader: str | None, own: bool) -> None:
    """Fails if a buffer that two modules hold, or that somebody else reads in the pass, is the norm's own."""
    mean = torch.zeros(4)
    graph = Graph({}, frozenset({id(mean)} if shared else ()))
    if reader is not None:
        inside = ((reader, 1),) if reader else ()
        Node(OTHER, "sub", (4,), (graph.node_of(mean),), inside)
        Node(OTHER, "sub", (4,), (graph.node_of(mean),), INSIDE)
    norm = NormLayer("batch_norm", "batch", 4, 1e-5, running_mean=mean)
    known = {("bn", 0): Known(norm, None, None, None, None)}
    assert _has_own_running_statistics(site(conv()), graph, known) is own
    without = {("bn", 0): Known(replace(norm, running_mean=None), None, None, None, None)}
    assert _has_own_running_statistics(site(conv()), graph, without)
