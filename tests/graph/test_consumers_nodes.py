"""The other side of a sum, and where values go, on nodes made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bnprobe.graph.consumers import (
    MOST_STEPS,
    Follow,
    Lost,
    _climb,
    _sum_by_name,
    _through_views,
    in_words,
    other_terms,
)
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node, above
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


def test_a_view_of_a_parameter_is_called_by_its_name() -> None:
    """Fails if a positional embedding that is cut to length, or a product of two parameters, is taken for something else."""
    pos = Node(LEAF, "", SHAPE, facts={"name": "pos"})
    assert climbed(node(PASS, node(PASS, pos))) == (["pos"], [])
    assert climbed(node(SCALE, pos, name="scale")) == (["pos"], ["scale"])
    assert climbed(node(MUL, pos, GAIN, name="mul")) == (["mul"], [])
    assert climbed(node(MUL, X, site(X), GAIN, name="mul")) == (["mul"], [])
    assert climbed(node(PASS)) == (["pass"], [])


def followed(start: Node, *outputs: Node) -> Follow:
    return Follow(start, above(outputs), set(outputs))


def chain(n: int, start: Node) -> Node:
    for _ in range(n):
        start = node(PASS, start)
    return start


def test_the_walk_along_views_ends() -> None:
    """Fails if one node more is walked, or one fewer: the norm, the views, and what takes the last of them ends it."""
    start = site(X)
    end = node(ACTIVATION, chain(MOST_STEPS - 1, start), name="relu")
    assert followed(start, end).names() == "relu"
    start = site(X)
    end = node(ACTIVATION, chain(MOST_STEPS, start), name="relu")
    with pytest.raises(Lost):
        followed(start, end).names()


def swish(x: Node, *of_gate: Node, taken_by: int = 1) -> Node:
    """x * sigmoid(x), whose sigmoid other products of x take as well."""
    gate = node(ACTIVATION, x, name="sigmoid")
    return node(ADD, *(node(MUL, *(of_gate or (x,)), gate, name="mul") for _ in range(taken_by)), name="add")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: x, "none"),
        (lambda x: node(PASS, x), "none"),
        (lambda x: node(ACTIVATION, x, name="relu"), "relu"),
        (lambda x: site(x, name="next"), "norm"),
        (lambda x: Node(OTHER, "sqrt", SHAPE, (x,), (("next", 0),)), "norm"),
        (lambda x: Node(PASS, "view", SHAPE, (x,), (("next", 0),)), "norm"),
        (lambda x: node(OTHER, x, name="aside"), "unknown"),
        (lambda x: node(MARK, node(ACTIVATION, node(MARK, x, name="cat"), name="relu"), name="cat"), "cat, relu"),
        (lambda x: node(ACTIVATION, node(MARK, node(MARK, x, name="cat"), name="cat"), name="relu"), "cat, relu"),
        (
            lambda x: node(ACTIVATION, node(MARK, node(MARK, x, name="cat"), name="max_pool"), name="relu"),
            "cat, max_pool, relu",
        ),
        (lambda x: node(ADD, x, X), "add"),
        (lambda x: node(ACTIVATION, node(ADD, x, X), name="relu"), "add, relu"),
        (lambda x: node(ACTIVATION, node(ADD, node(PASS, node(ADD, x, X)), X), name="gelu"), "add, gelu"),
        (lambda x: node(WEIGHTS, node(ADD, x, X), name="conv"), "add"),
        (lambda x: swish(x), "silu"),
        (lambda x: swish(x, X), "sigmoid"),
        (lambda x: swish(x, taken_by=2), "sigmoid | mul"),
        (lambda x: node(ADD, node(ACTIVATION, x, name="sigmoid"), x), "sigmoid | add"),
        (lambda x: node(ADD, node(ACTIVATION, x, name="relu"), node(ACTIVATION, x, name="relu")), "relu"),
    ],
)  # fmt: skip
def test_what_follows_a_norm(build: Callable[[Node], Node], expected: str) -> None:
    """Fails if a mark is named twice, a sum hides its activation, x * sigmoid(x) is none, or another gate is one."""
    start = site(X)
    assert followed(start, build(start)).names() == expected


def test_a_sum_that_two_take_ends_the_answer() -> None:
    """Fails if an activation that only some of a sum's takers are is named, or an output that is a sum is activated."""
    for others in ("tanh", None):
        start = site(X)
        total = node(ADD, start, X)
        relu = node(ACTIVATION, total, name="relu")
        ends = [relu, total if others is None else node(ACTIVATION, total, name=others)]
        assert followed(start, *ends).names() == "add"
    start = site(X)
    total = node(ADD, start, X)
    again, too = node(ADD, total, X), node(ACTIVATION, total, name="relu")
    assert followed(start, node(ACTIVATION, again, name="gelu"), too).names() == "add"
    start = site(X)
    total = node(ADD, start, X)
    same = [node(ACTIVATION, total, name="relu") for _ in range(2)]
    assert followed(start, *same).names() == "add, relu"


def test_what_no_output_depends_on_decides_nothing() -> None:
    """Fails if a copy that somebody keeps is an answer, or a model that stores its results has none."""
    start = site(X)
    relu = node(ACTIVATION, start, name="relu")
    node(ACTIVATION, start, name="tanh")
    assert followed(start, relu).names() == "relu"
    assert followed(start, X).names() == "relu | tanh"
    assert followed(site(X), X).names() == "unknown"


def test_the_other_terms_of_sums() -> None:
    """Fails if the norm's own values, or a sum that was met, are another term of a sum."""
    start, skip, more = site(X), node(OTHER, X, name="skip"), node(OTHER, X, name="more")
    first = node(ADD, node(PASS, start), skip)
    follow = followed(start, node(ACTIVATION, node(ADD, more, first, start), name="relu"))
    assert follow.names() == "add, relu"
    assert other_terms(follow) == [more, skip]


def test_the_other_side_in_words() -> None:
    """Fails if what acts is named from the sum upwards, a name is said twice, or nothing acts without being said so."""
    gelu = node(ACTIVATION, node(OTHER, site(X), name="avg_pool"), name="gelu")
    assert in_words([gelu, site(X), X], lambda at: at[0]) == ("bn, input", "avg_pool, gelu")
    assert in_words([X], lambda at: at[0]) == ("input", "none")
