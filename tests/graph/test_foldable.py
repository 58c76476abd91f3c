"""Into which layer a norm can be folded, and what stands in the way, on small nets with one habit each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bnprobe.graph.foldable import Feeder, feeder_of, is_own
from bnprobe.graph.graph import LEAF, Node
from bnprobe.graph.operations import OTHER, PASS
from bnprobe.graph.record_op import Graph
from graph.watched import Wired, graph_of

C = 3
X = torch.linspace(-2, 2, 2 * C * 6 * 6).reshape(2, C, 6, 6)


def layers(**more: nn.Module) -> dict[str, nn.Module]:
    convs = {name: nn.Conv2d(C, C, 3, padding=1) for name in ("a", "b")}
    return {**convs, "bn": nn.BatchNorm2d(C), "bn2": nn.BatchNorm2d(C), **more}


def tied() -> dict[str, nn.Module]:
    """Two convolutions of one weight."""
    both = layers()
    both["b"].weight = both["a"].weight  # type: ignore[assignment]
    return both


def bias_tied() -> dict[str, nn.Module]:
    both = layers()
    both["b"].bias = both["a"].bias  # type: ignore[assignment]
    return both


def _twice(m: Any, x: Tensor) -> Tensor:
    return m.bn(m.b(m.bn(m.a(x)).relu()))


Way = Callable[[Any, Tensor], Any]
CASES: dict[str, tuple[Way, dict[str, nn.Module], str, str]] = {
    "plain": (lambda m, x: m.bn(m.a(x)), {}, "a", ""),
    "without a bias": (lambda m, x: m.bn(m.n(x)), {"n": nn.Conv2d(C, C, 1, bias=False)}, "n", ""),
    "called twice on one layer": (lambda m, x: m.bn(m.a(m.bn(m.a(x)).relu())), {}, "a", ""),
    "linear": (
        lambda m, x: m.one(m.q(x.mean((2, 3)))),
        {"q": nn.Linear(C, C), "one": nn.BatchNorm1d(C)},
        "q",
        "",
    ),
    "never called": (lambda m, x: m.bn2(m.a(x)), {}, "", "no values reached it"),
    "the input": (
        lambda m, x: m.bn(x),
        {},
        "",
        "it reads the model's input, not the output of a convolution",
    ),
    "a sum": (lambda m, x: m.bn(m.a(x) + m.b(x)), {}, "", "it reads a sum, not"),
    "another norm": (lambda m, x: m.bn(m.bn2(m.a(x))), {}, "", "it reads another norm, not"),
    "an activation": (lambda m, x: m.bn(m.a(x).relu()), {}, "", "it reads the output of relu, not"),
    "a constant": (lambda m, x: (m.a(x), m.bn(m.a.weight))[1], {}, "", "it reads a constant, not"),
    "a concatenation": (
        lambda m, x: m.bn(torch.cat([m.a(x)[:, :1], x[:, :2]], 1)),
        {},
        "",
        "it reads a concatenation, not",
    ),
    "a pooled output": (lambda m, x: m.bn(F.max_pool2d(m.a(x), 2)), {}, "", "it reads max_pool, not"),
    "channels cut": (
        lambda m, x: m.small(m.a(x)[:, :2]),
        {"small": nn.BatchNorm2d(2)},
        "",
        "between the layer before it and the norm, channels are moved, cut or padded",
    ),
    "overwritten in part": (
        lambda m, x: m.bn(_half(m.a(x))),
        {},
        "",
        "it reads values that were overwritten in part, not",
    ),
    "two layers": (_twice, {}, "", "what feeds it differs from call to call"),
    "no module": (
        lambda m, x: m.bn(F.conv2d(x, torch.ones(C, C, 1, 1))),
        {},
        "",
        "what feeds it differs from call to call",
    ),
    "a computed weight": (
        lambda m, x: m.bn(F.conv2d(x, 2 * m.a.weight)),
        {},
        "",
        "the weight of a is computed in each pass",
    ),
    "a parametrized weight": (
        lambda m, x: m.bn(m.p(x)),
        {"p": parametrizations.weight_norm(nn.Conv2d(C, C, 1))},
        "",
        "the weight of p is computed in each pass, or shared",
    ),
    "a weight that is read": (
        lambda m, x: m.bn(m.a(x)) + m.a.weight.sum(),
        {},
        "",
        "the weight of a is computed",
    ),
    "a shared weight": (
        lambda m, x: m.bn(m.a(x)),
        tied(),
        "",
        "the weight of a is computed in each pass, or shared",
    ),
    "a shared bias": (
        lambda m, x: m.bn(m.a(x)),
        bias_tied(),
        "",
        "the bias of a is computed, shared, or read elsewhere",
    ),
    "a bias that is read": (
        lambda m, x: m.bn(m.a(x)) + m.a.bias.sum(),
        {},
        "",
        "the bias of a is computed, shared",
    ),
    "the output is used, too": (
        lambda m, x: m.bn(h := m.a(x)) + h,
        {},
        "",
        "the output of a is used elsewhere, too",
    ),
    "the output is returned, too": (
        lambda m, x: (m.bn(h := m.a(x)), h),
        {},
        "",
        "the output of a is used elsewhere",
    ),
    "the layer is used, too": (
        lambda m, x: m.bn(m.a(x)) + m.a(x),
        {},
        "",
        "the output of a is used elsewhere, too",
    ),
}


def _half(y: Tensor) -> Tensor:
    y[:, :1] = 0.0
    return y


@pytest.mark.parametrize("name", CASES)
def test_the_layer_that_a_norm_can_be_folded_into(name: str) -> None:
    """Fails if folding would change what somebody else reads, or a layer that only the norm reads is refused."""
    way, more, layer, why = CASES[name]
    asked = next((one for one in ("one", "small") if one in more), "bn")
    with graph_of(Wired(way, **layers(**more)), X) as look:
        found = feeder_of(asked, look.graph, look.known)
    assert found.layer == layer
    assert why in found.why
    assert bool(found.why) is (not layer)


def test_a_feeder_alone_has_nothing_in_the_way() -> None:
    """Fails if a reason stands where none was given."""
    assert Feeder("a").why == ""


def parameter(name: str = "a.weight") -> Node:
    return Node(LEAF, "", (3, 3), facts={"name": name, "tensor": torch.zeros(3, 3)})


def view(node: Node, name: str = "t") -> Node:
    return Node(PASS, name, node.shape, (node,))


def test_a_weight_of_its_own() -> None:
    """Fails if another's parameter is the layer's own, one that is shared, or what a view other than a cast made of it."""
    own = parameter()
    graph = Graph({})
    assert is_own(own, "a.weight", graph)
    assert is_own(view(view(parameter()), "detach"), "a.weight", graph)
    assert not is_own(own, "b.weight", graph)
    assert not is_own(view(parameter(), "flip"), "a.weight", graph)
    assert not is_own(Node(OTHER, "mul", (3, 3), facts=own.facts), "a.weight", graph)
    assert not is_own(Node(OTHER, "mul", (3, 3)), "a.weight", graph)
    assert not is_own(Node(PASS, "t", (3, 3)), "a.weight", graph)
    assert not is_own(own, "a.weight", Graph({}, frozenset({id(own.facts["tensor"])})))


@pytest.mark.parametrize("through", [[], ["t"], ["detach", "view"]])
def test_a_weight_that_something_reads(through: list[str]) -> None:
    """Fails if a reader behind views goes unseen, or views that lead nowhere are readers."""
    node = weight = parameter()
    for name in through:
        node = view(node, name)
    assert is_own(weight, "a.weight", Graph({}))
    Node(OTHER, "sum", (), (node,))
    assert not is_own(weight, "a.weight", Graph({}))
    flipped = parameter()
    view(flipped, "flip")
    assert not is_own(flipped, "a.weight", Graph({}))


def test_every_call_of_the_layer_is_looked_at() -> None:
    """Fails if one call with the parameter as it is hides another with a computed weight or bias."""

    def asked(way: Way) -> Feeder:
        with graph_of(Wired(way, **layers()), X) as look:
            return feeder_of("bn", look.graph, look.known)

    def twice(weight: Callable[[Any], Tensor], bias: Callable[[Any], Tensor], first: bool) -> Way:
        def way(m: Any, x: Tensor) -> Tensor:
            for by_hand in (first, not first):
                y = F.conv2d(x, weight(m), bias(m), padding=1) if by_hand else m.a(x)
                x = m.bn(y).relu()
            return x

        return way

    for first in (True, False):
        found = asked(twice(lambda m: 2 * m.a.weight, lambda m: m.a.bias, first))
        assert "the weight of a is computed" in found.why
        found = asked(twice(lambda m: m.a.weight, lambda m: 2 * m.a.bias, first))
        assert "the bias of a is computed" in found.why
        assert asked(twice(lambda m: m.a.weight, lambda m: m.a.bias, first)) == Feeder("a")


@pytest.mark.parametrize("own_first", [True, False])
def test_a_second_weight_of_the_same_module(own_first: bool) -> None:
    """Fails if one call with the module's weight hides another with a second parameter, which folding would not reach."""
    both = layers()
    both["a"].other = nn.Parameter(torch.ones(C, C, 3, 3))

    def way(m: Any, x: Tensor) -> Tensor:
        for own in (own_first, not own_first):
            x = m.bn(F.conv2d(x, m.a.weight if own else m.a.other, m.a.bias, padding=1)).relu()
        return x

    with graph_of(Wired(way, **both), X) as look:
        found = feeder_of("bn", look.graph, look.known)
    assert "the weight of a is computed in each pass, or shared" in found.why
