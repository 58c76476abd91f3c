"""Which norm came before on a residual stream, which one ends a stream, and what the next layers read of each channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bnprobe.graph.graph import Node
from bnprobe.graph.reads import MOST_STEPS, column_lengths
from bnprobe.graph.stream import MOST_SUMS, Streams
from graph.watched import Wired, graph_of

C = 6
X = torch.linspace(-2, 2, 2 * 5 * C).reshape(2, 5, C)


def net(way: Callable[[Any, Tensor], Any]) -> nn.Module:
    layers: dict[str, nn.Module] = {name: nn.LayerNorm(C) for name in ("n1", "n2", "n3")}
    layers |= {name: nn.Linear(C, C) for name in ("f", "g", "head")}
    return Wired(way, **layers, drop=nn.Dropout(0.5), table=nn.Embedding(9, C), wide=nn.Linear(2 * C, C))


def _blocks(m: Any, x: Tensor) -> Tensor:
    x = x + m.f(m.n1(x))
    x = x + m.g(m.n2(x))
    return m.head(m.n3(x))


def _side_by_side(m: Any, x: Tensor) -> Tensor:
    x = x + m.g(m.n1(x))
    return m.head(x + m.f(m.n2(x)) + m.g(m.n3(x)))


def _many(n: int) -> Callable[[Any, Tensor], Any]:
    def way(m: Any, x: Tensor) -> Tensor:
        m.n1(x)
        for _ in range(n):
            x = x + 1.5 * m.f.weight[0]
        return m.head(m.n2(x))

    return way


STREAMS: dict[str, tuple[Callable[[Any, Tensor], Any], dict[str, str | None]]] = {
    "two blocks": (_blocks, {"n1": None, "n2": "n1", "n3": "n2"}),
    "dropout and views on the way": (
        lambda m, x: m.head(m.n2((x + m.drop(m.f(m.n1(x)))).reshape(2, 5, C).detach())),
        {"n1": None, "n2": "n1"},
    ),
    "two branches of one input": (
        lambda m, x: m.n3(x + m.f(m.n1(x)) + m.g(m.n2(x))),
        {"n1": None, "n2": None, "n3": "n2"},
    ),
    "side by side": (_side_by_side, {"n1": None, "n2": "n1", "n3": "n1"}),
    "both of one input": (lambda m, x: m.f(m.n1(x)) + m.g(m.n2(x)), {"n1": None, "n2": None}),
    "no skip": (lambda m, x: m.n2(m.f(m.n1(x))), {"n1": None, "n2": None}),
    "after a norm": (lambda m, x: m.n2(m.n1(x)), {"n1": None, "n2": None}),
    "an activation between": (lambda m, x: m.n2((x + m.f(m.n1(x))).relu()), {"n1": None, "n2": None}),
    "as many sums as are followed": (_many(MOST_SUMS), {"n2": "n1"}),
    "one more": (_many(MOST_SUMS + 1), {"n2": None}),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_the_norm_before_on_the_stream(name: str) -> None:
    """Fails if a norm of another stream is named, the last of several is not, or a chain of sums is cut elsewhere."""
    way, expected = STREAMS[name]
    with graph_of(net(way), X) as look:
        sites = look.graph.sites
        for norm, before in expected.items():
            found = Streams(sites).before(sites[norm, 0])
            assert found == (None if before is None else (before, 0)), norm


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (lambda m, x: m.head(x + m.f(m.n1(x))), {"n1"}),
        (lambda m, x: m.head(m.drop(x + m.f(m.n1(x)))).reshape(-1, C), {"n1"}),
        (lambda m, x: m.head((x + m.f(m.n1(x))).mean(0, keepdim=True)), {"n1"}),
        (lambda m, x: m.wide(torch.cat([y := x + m.f(m.n1(x)), y.mean(0, True).expand_as(y)], -1)), {"n1"}),
        (lambda m, x: m.head(m.n1(x).mean(0, keepdim=True)), set()),
        (_blocks, set()),
        (lambda m, x: x + m.f(m.n1(x)), set()),
        (lambda m, x: m.head(m.n1(x)), set()),
        (lambda m, x: m.head((x + m.f(m.n1(x))).relu()), set()),
    ],
)
def test_streams_that_end_in_weights_without_a_norm(
    way: Callable[[Any, Tensor], Any], expected: set[str]
) -> None:
    """Fails if a last norm before the head is not seen, or a stream without weights at its end has a head."""
    with graph_of(net(way), X) as look:
        graph = look.graph
        assert Streams(graph.sites).before_head(graph.outputs) == {(name, 0) for name in expected}


class Turned(nn.Module):
    """Weights as (in, out)."""

    def __init__(self, n: int = 4) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(C, n)), nn.Parameter(torch.randn(n))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, C), self.weight)


def lengths(way: Callable[[Any, Tensor], Any], **layers: nn.Module) -> Any:
    torch.manual_seed(0)
    with graph_of(Wired(way, norm=nn.LayerNorm(C), **layers), X) as look:
        return column_lengths(look.graph.sites["norm", 0], C)


def test_what_linear_layers_read_of_each_channel() -> None:
    """Fails if rows are taken for columns, lengths of several readers are added and not their squares, or views hide one."""
    q, k, turned = nn.Linear(C, 4), nn.Linear(C, 3, bias=False), Turned()
    square = {name: layer.weight.detach().double().numpy() ** 2 for name, layer in (("q", q), ("k", k))}
    of_turned = turned.weight.detach().double().numpy() ** 2
    one = lengths(lambda m, x: m.q(m.norm(x)), q=q)
    np.testing.assert_allclose(one, np.sqrt(square["q"].sum(0)), rtol=1e-6)
    both = lengths(lambda m, x: (m.q(y := m.norm(x)), m.k(y.reshape(10, C))), q=q, k=k)
    np.testing.assert_allclose(both, np.sqrt(square["q"].sum(0) + square["k"].sum(0)), rtol=1e-6)
    also = lengths(lambda m, x: m.turned(m.norm(x)), turned=turned)
    np.testing.assert_allclose(also, np.sqrt(of_turned.sum(1)), rtol=1e-6)


@pytest.mark.parametrize(
    "way", [lambda m, x: m.norm(x), lambda m, x: m.norm(x).relu(), lambda m, x: m.other(m.norm(x).transpose(1, 2))]
)  # fmt: skip
def test_without_a_linear_layer_over_the_channels_nothing_is_read(way: Callable[[Any, Tensor], Any]) -> None:
    """Fails if weights over another dimension, or none, have lengths."""
    assert lengths(way, other=nn.Linear(5, 2)) is None


@pytest.mark.parametrize(
    ("part", "name", "handed_on"),
    [("mark", "dropout", True), ("mark", "cat", False), ("pass", "view", True), ("other", "fft", False)],
)
def test_what_a_stream_goes_on_through(part: str, name: str, handed_on: bool) -> None:
    """Fails if a dropout in training ends a stream, or what puts values together does not."""

    def op(part: str, name: str, *inputs: Node) -> Node:
        return Node(part, name, (2, 5, C), inputs)

    start = op("input", "")
    first = op("site", "norm", start)
    total = op("add", "add", start, op("weights", "linear", first))
    last = op("site", "norm", op(part, name, total))
    assert Streams({("a", 0): first, ("b", 0): last}).before(last) == (("a", 0) if handed_on else None)


def reading(weight: Tensor, turned: bool = False, views: int = 0, name: str = "linear") -> Any:
    """What a layer with this weight reads of a norm of C channels, past so many views."""
    node = site = Node("site", "norm", (2, 5, C))
    for _ in range(views):
        node = Node("pass", "view", (2, 5, C), (node,))
    Node("weights", name, (2, 5, 4), (node,), facts={"weight": weight, "turned": turned})
    return column_lengths(site, C)


def test_columns_of_weights_that_lie_either_way() -> None:
    """Fails if rows are taken for columns, also where there are as many of both, or whole numbers have lengths."""
    square = torch.arange(C * C, dtype=torch.float64).reshape(C, C)
    np.testing.assert_allclose(reading(square), np.sqrt((square.numpy() ** 2).sum(0)), rtol=1e-6)
    np.testing.assert_allclose(reading(square, True), np.sqrt((square.numpy() ** 2).sum(1)), rtol=1e-6)
    assert reading(torch.ones(4, C)) is not None
    assert reading(torch.ones(C, 4)) is None
    assert reading(torch.ones(4, C), True) is None
    assert reading(torch.ones(C, 4), True) is not None
    assert reading(torch.ones(4, C, dtype=torch.int8)) is None
    assert reading(torch.ones(4, C), name="conv") is None


@pytest.mark.parametrize(("views", "found"), [(MOST_STEPS - 1, True), (MOST_STEPS, False)])
def test_weights_behind_so_many_views(views: int, found: bool) -> None:
    """Fails if one view more is walked, or one fewer: the norm itself is the first step."""
    assert (reading(torch.ones(4, C), views=views) is not None) is found


REPEATED: dict[str, tuple[Callable[[Any, Tensor], Any], str | None]] = {
    "as it is": (lambda m, x: m.head(m.n2(m.n1(x))), "n1"),
    "past views and dropout": (lambda m, x: m.n2(m.drop(m.n1(x).reshape(10, C).detach())), "n1"),
    "weights between": (lambda m, x: m.n2(m.f(m.n1(x))), None),
    # as in vision transformers that begin with a norm: the stream takes it, too
    "read elsewhere": (lambda m, x: (y := m.n1(x)) + m.f(m.n2(y)), None),
    "a view read elsewhere": (lambda m, x: (y := m.n1(x).reshape(10, C)) + m.f(m.n2(y)), None),
    "the input of two": (lambda m, x: m.n1(x) + m.n2(x), None),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_norm_of_a_norm(name):
    """Fails if anything stands between the two, or the first has another reader; or views hide that nothing does."""
    way, expected = REPEATED[name]
    with graph_of(net(way), X) as look:
        sites = look.graph.sites
        found = Streams(sites).directly_after(sites["n2", 0])
    assert found == (None if expected is None else (expected, 0))
