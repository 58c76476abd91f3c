"""Pooling that leaves channels where they are, on nodes made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from bnprobe.graph.geometry import Geometry
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.operations import ACTIVATION, MARK, OTHER, PASS, WEIGHTS
from bnprobe.graph.record_op import Graph
from bnprobe.graph.removable import InTheWay, Reader, _keeps_zeros, readers_of

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


SHAPE = (2, 3, 5, 5)


def op(part: str, name: str, *inputs: Node, shape: tuple[int, ...] = SHAPE, **facts: Any) -> Node:
    return Node(part, name, shape, inputs, facts=facts)


def site() -> Node:
    return op(SITE, "norm", site=("bn", 0))


def relu(x: Node) -> Node:
    return op(ACTIVATION, "relu", x, shape=x.shape)


def reader(x: Node, layer: str = "next", **changes: Any) -> Node:
    """A convolution that reads these values, or a linear layer where they have no positions."""
    n = len(x.shape) - 2
    parameter = Node(LEAF, "", (2, 3), facts={"name": f"{layer}.weight", "tensor": torch.zeros(2, 3)})
    geometry = Geometry((1,) * n, ((0, 0),) * n, (1,) * n)
    return op(WEIGHTS, "conv", x, geometry=replace(geometry, **changes), layer=layer, weight_node=parameter)


def found(start: Node, *weighted: Node, outputs: tuple[Node, ...] = ()) -> tuple[Reader, ...] | str:
    graph = Graph({}, sites={("bn", 0): start}, weighted=list(weighted), outputs=list(outputs))
    try:
        return readers_of("bn", graph)
    except InTheWay as reason:
        return str(reason)


def test_readers_behind_every_way() -> None:
    """Fails if a copy, a pooling or a flattening hides a reader, or its columns are those of another shape."""
    start = site()
    gate = relu(op(PASS, "clone", start))
    pooled = op(MARK, "max_pool", gate, shape=(2, 3, 2, 4), operation="max_pool2d", args=(None, 2))
    flat = op(PASS, "view", pooled, shape=(2, 24), args=(None, (2, 24)))
    again = op(PASS, "reshape", flat, shape=(2, 24), args=(None, (2, 24)))
    readers = (
        reader(gate),
        reader(pooled, "second"),
        reader(flat, "third"),
        reader(op(MARK, "dropout", again, shape=(2, 24)), "fourth"),
    )
    assert set(found(start, *readers)) == {
        Reader("next"),
        Reader("second"),
        Reader("third", 8),
        Reader("fourth", 8),
    }
    twice = site()
    gate = relu(twice)
    assert found(twice, reader(gate), reader(gate)) == (Reader("next"),)


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, True),
        ({"groups": 3}, False),
        ({"transposed": True}, False),
        ({"stride": (1,)}, False),
        ({"stride": (1,) * 3}, False),
    ],
)
def test_layers_that_read_channels_one_by_one(changes: dict[str, Any], read: bool) -> None:
    """Fails if a grouped or transposed layer, or one over other dimensions, is a reader."""
    start = site()
    one = reader(relu(start), **changes)
    assert found(start, one) == (
        (Reader("next"),) if read else "next, which reads it, is grouped, transposed or reads tokens"
    )


def test_what_else_takes_the_channels() -> None:
    """Fails if places of a maximum that somebody asks for, an output, or what is read before the ReLU stays unseen."""
    start = site()
    gate = relu(start)
    one, aside = reader(gate), op(OTHER, "aside", gate)
    assert found(start, one) == (Reader("next"),)
    op(PASS, "view", aside)
    assert found(start, one) == "its output enters aside"
    start = site()
    gate = relu(start)
    assert found(start, reader(gate), outputs=(gate,)) == "its output is an output of the model"
    start = site()
    assert found(start, reader(start)) == "its output enters a layer with weights before a ReLU"
    start = site()
    assert found(start, reader(relu(start)), reader(op(INPUT, ""))) == "next also reads other values"
    assert found(start, reader(op(INPUT, ""), "other"), *start.consumers[0].consumers) == (Reader("next"),)
    start = site()
    flat = op(PASS, "view", relu(start), shape=(2, 75), args=(None, (2, 75)))
    op(MARK, "max_pool", flat, shape=(2, 37), operation="max_pool1d", args=(None, 2))
    assert found(start) == "its output enters max_pool"
    start = site()
    as_weight = op(WEIGHTS, "conv", op(INPUT, ""), relu(start), geometry=Geometry(), layer="dynamic")
    assert found(start, as_weight) == "its output enters a layer with weights"
    assert found(site()) == "nothing reads its output"


def test_a_weight_that_is_not_the_layers_own() -> None:
    """Fails if a weight without a module, or one that is computed, may be cut."""
    start = site()
    nameless = reader(relu(start), "")
    assert found(start, nameless) == "the weight of what reads it is computed in each pass, or shared"
    start = site()
    computed = reader(relu(start))
    computed.facts["weight_node"] = op(OTHER, "mul", computed.facts["weight_node"])
    assert found(start, computed) == "the weight of next is computed in each pass, or shared"
