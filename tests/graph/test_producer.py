"""The layer before a norm and what went into it: names, geometry, sources; and when the answer is that none is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import bnprobe
from bnprobe.graph import producer
from bnprobe.graph.geometry import Geometry, Producer, Source
from bnprobe.graph.graph import INPUT, LEAF, SITE, Node
from bnprobe.graph.operations import ACTIVATION, ADD, MARK, MUL, OTHER, PASS, WEIGHTS
from bnprobe.graph.producer import (
    DEEPEST,
    Known,
    _is_bias,
    _weight,
    _with_padding,
    dim_before,
    numbers,
    source_of,
)
from bnprobe.norms import NormLayer
from bnprobe.recording.neighbours import Neighbours
from graph.watched import neighbours_of, random_vectors

C = 6
X = torch.linspace(-2, 3, 2 * 3 * 9 * 11).reshape(2, 3, 9, 11)


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[Producer]:
    """Every producer that is found, as the reductions get it."""
    found: list[Producer] = []
    real = producer._copied

    def kept(*args: Any) -> Producer | None:
        producer = real(*args)
        if producer is not None:
            found.append(producer)
        return producer

    monkeypatch.setattr(producer, "_copied", kept)
    return found


def fed(layer: nn.Module, norm: nn.Module, x: Tensor = X) -> Neighbours:
    return neighbours_of(random_vectors(nn.Sequential(layer, norm)), x)["1"]


GEOMETRIES: dict[str, tuple[nn.Module, Geometry]] = {
    "plain": (nn.Conv2d(3, C, 3), Geometry((1, 1), ((0, 0),) * 2, (1, 1), 1, (9, 11), (7, 9))),
    "stride and padding": (
        nn.Conv2d(3, C, (3, 5), stride=(2, 1), padding=(1, 2), bias=False),
        Geometry((2, 1), ((1, 1), (2, 2)), (1, 1), 1, (9, 11), (5, 11)),
    ),
    "dilated": (
        nn.Conv2d(3, C, 3, dilation=(2, 3), padding=3),
        Geometry((1, 1), ((3, 3),) * 2, (2, 3), 1, (9, 11), (11, 11)),
    ),
    "grouped": (nn.Conv2d(3, C, 3, groups=3), Geometry((1, 1), ((0, 0),) * 2, (1, 1), 3, (9, 11), (7, 9))),
    "same, even kernel": (
        nn.Conv2d(3, C, 4, padding="same"),
        Geometry((1, 1), ((1, 2),) * 2, (1, 1), 1, (9, 11), (9, 11)),
    ),
    "zeros put before it": (
        nn.Sequential(nn.ZeroPad2d((1, 2, 0, 3)), nn.Conv2d(3, C, 3, padding=1)),
        Geometry((1, 1), ((1, 4), (2, 3)), (1, 1), 1, (9, 11), (12, 14)),
    ),
    "transposed": (
        nn.ConvTranspose2d(3, C, 3, stride=2, padding=1, output_padding=1),
        Geometry((2, 2), ((1, 1),) * 2, (1, 1), 1, (9, 11), (18, 22), True, (1, 1)),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_of_convolutions(name: str, mode: Any, producers: list[Producer]):
    """Fails if an argument of a convolution is read from the wrong place, in either spelling."""
    layer, expected = GEOMETRIES[name]
    with mode():
        neighbours = fed(layer, nn.BatchNorm2d(C))
    assert producers[0].geometry == expected
    assert neighbours.producer == ("0.1" if isinstance(layer, nn.Sequential) else "0")
    assert neighbours.source == "input"
    conv = layer[1] if isinstance(layer, nn.Sequential) else layer
    np.testing.assert_array_equal(producers[0].weight, conv.weight.detach().double().numpy())
    assert (producers[0].bias is None) == (conv.bias is None)
    # what the weights make of an input that is 1 everywhere is known without them: the stem's matrix says it
    with torch.no_grad():
        real = layer(torch.ones(1, 3, 9, 11)).double().mean((0, 2, 3)).numpy()
    bias = 0.0 if neighbours.stem.bias is None else neighbours.stem.bias
    np.testing.assert_allclose(neighbours.stem.matrix.sum(1) + bias, real, rtol=1e-5, atol=1e-5)


class Turned(nn.Module):
    """Weights as (in, out), as in GPT-2's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(11, C)), nn.Parameter(torch.randn(C))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, 11), self.weight).reshape(*x.shape[:-1], C)


LINEAR: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
    "on rows": (nn.Linear(11, C), lambda x: x[:, 0, 0]),
    "without bias": (nn.Linear(11, C, bias=False), lambda x: x[:, 0, 0]),
    "on more dimensions": (nn.Linear(11, C), lambda x: x),
    "on a tensor that is not contiguous": (nn.Linear(9, C), lambda x: x.transpose(2, 3)),
    "turned": (Turned(), lambda x: x),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers(name: str, mode: Any, producers: list[Producer]):
    """Fails if a weight is taken lying on its side, or a bias that torch adds by itself is missed."""
    layer, view = LINEAR[name]
    with mode():
        neighbours = fed(layer, nn.LayerNorm(C), view(X))
    (producer,) = producers
    turned = isinstance(layer, Turned)
    weight = layer.weight.detach().double().numpy()
    np.testing.assert_array_equal(producer.weight, weight.T if turned else weight)
    if layer.bias is None:
        assert producer.bias is None
    else:
        np.testing.assert_array_equal(producer.bias, layer.bias.detach().double().numpy())
    assert (neighbours.producer, neighbours.source) == ("0", "input")
    assert producer.geometry.is_linear


def test_autocast_keeps_the_parameter_itself(producers: list[Producer]):
    """Fails if weights are taken from the copy in half precision."""
    conv = nn.Conv2d(3, C, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fed(conv, nn.BatchNorm2d(C)).producer == "0"
    np.testing.assert_array_equal(producers[0].weight, conv.weight.detach().double().numpy())


def test_weights_that_are_computed_from_parameters(producers: list[Producer]):
    """A parametrized layer is known by its own name, with the weights that it really used."""
    layer = parametrizations.weight_norm(nn.Conv2d(3, C, 3))
    assert fed(layer, nn.BatchNorm2d(C)).producer == "0"
    np.testing.assert_allclose(producers[0].weight, layer.weight.detach().double().numpy(), rtol=1e-12)


def test_weights_that_depend_on_the_input():
    """Fails if numbers of one batch are taken for what the network knows."""

    class Dynamic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, C, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.conv.weight * x.mean())

    found = fed(Dynamic(), nn.BatchNorm2d(C))
    assert (found.producer, found.folded, found.stem) == ("0.conv", None, None)


class Net(nn.Module):
    """A norm `a`, something, a convolution, and the norm `b` that is asked about."""

    def __init__(self, between: Callable[[Net, Tensor, Tensor], Tensor], n_inputs: int = 3) -> None:
        super().__init__()
        self.a, self.a2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.conv, self.b = nn.Conv2d(n_inputs, C, 3), nn.BatchNorm2d(C)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.conv(self.between(self, self.a(x), x))).relu()


def _sum(n: Net, y: Tensor, x: Tensor) -> Tensor:
    return F.relu(y + n.a2(x).sigmoid())


SOURCES: dict[str, tuple[Net, tuple[str, tuple[str, ...], str]]] = {
    "a norm": (Net(lambda n, y, x: y), ("norm", ("a",), "none")),
    "an activation": (Net(lambda n, y, x: F.relu_(y)), ("norm", ("a",), "relu")),
    "two activations": (Net(lambda n, y, x: F.relu(y).tanh()), ("unknown", (), "none")),
    "views": (
        Net(lambda n, y, x: F.silu(y.permute(0, 2, 3, 1)).movedim(-1, 0).permute(1, 0, 2, 3)),
        ("norm", ("a",), "silu"),
    ),
    "turned there and back": (
        Net(lambda n, y, x: F.silu(y.flatten(2).transpose(1, 2)).transpose(1, 2).view(y.shape)),
        ("norm", ("a",), "silu"),
    ),
    "channels shuffled": (Net(lambda n, y, x: F.relu(y).flip(1)), ("unknown", (), "none")),
    "rows turned over": (Net(lambda n, y, x: F.relu(y).flip(2)), ("norm", ("a",), "relu")),
    "half the channels twice": (
        Net(lambda n, y, x: torch.cat([y[:, :1], y[:, :2]], 1)),
        ("unknown", (), "none"),
    ),
    "a concatenation": (
        Net(lambda n, y, x: torch.cat([F.relu(y), F.relu(n.a2(x))], 1), 6),
        ("concat", ("a", "a2"), "relu"),
    ),
    "activated after": (
        Net(lambda n, y, x: F.relu(torch.cat([y, n.a2(x)], 1)), 6),
        ("concat", ("a", "a2"), "relu"),
    ),
    "with the input": (Net(lambda n, y, x: torch.cat([y, x], 1), 6), ("concat", ("a", "input"), "none")),
    "more images": (Net(lambda n, y, x: torch.cat([x, x], 0)), ("input", ("input",), "none")),
    "a sum": (Net(_sum), ("sum", ("a", "a2"), "relu")),
    "a gate": (Net(lambda n, y, x: y * n.a2(x).sigmoid()), ("unknown", (), "none")),
    "a number": (Net(lambda n, y, x: 2 * y), ("unknown", (), "none")),
    "averaged": (Net(lambda n, y, x: F.avg_pool2d(F.relu(y), 2)), ("norm", ("a",), "relu")),
    "activated after an average": (
        Net(lambda n, y, x: F.relu(F.avg_pool2d(y, 2))),
        ("unknown", (), "none"),
    ),
    "more channels by zeros": (
        Net(lambda n, y, x: F.pad(F.relu(y), (0, 0, 0, 0, 2, 1)), 6),
        ("concat", ("a",), "relu"),
    ),
    "the input": (Net(lambda n, y, x: x), ("input", ("input",), "none")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_what_went_into_the_layer(name: str):
    """Fails if channels are ascribed to a norm that did not make them, or in another order."""
    net, expected = SOURCES[name]
    found = neighbours_of(random_vectors(net), X)["b"]
    assert found.producer == "conv"
    assert (found.source, found.sources, found.activation) == expected


@pytest.mark.parametrize(
    "name", ["a norm", "an activation", "turned there and back", "a concatenation", "a sum"]
)
def test_what_is_implied_is_what_comes_out(name: str):
    """Fails if a chain is put together wrongly: the implied mean is held against Gaussians sent through the net."""
    net = random_vectors(SOURCES[name][0])
    x = torch.randn(64, 3, 20, 20)
    for norm in (net.a, net.a2):
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0)
    implied = neighbours_of(net, x)["b"].implied
    with torch.no_grad():
        real = net.conv(net.between(net, net.a(x), torch.randn_like(x) if name == "a sum" else x))
    rows = real.double().transpose(0, 1).flatten(1).numpy()
    error = 5 * rows.std(1) / np.sqrt(64 * 18 * 18 / 9)
    if name == "a sum":
        error = error + 0.1 * rows.std(1)  # a sum of clipped Gaussians is taken for a Gaussian
    np.testing.assert_array_less(np.abs(implied.mean - rows.mean(1)), error)


def test_nothing_is_said_where_channels_do_not_match():
    """Fails if a norm over other dimensions than the layer's output channels is given its weights."""
    net = random_vectors(nn.Sequential(nn.Conv2d(3, C, 3), nn.Flatten(2), nn.LayerNorm(63)))
    found = neighbours_of(net, X)["2"]
    assert (found.producer, found.folded) == ("0", None)


def test_unpooled_norms_keep_no_numbers():
    """A norm without running statistics has no running mean that weights could imply."""
    found = neighbours_of(random_vectors(nn.Sequential(nn.Conv2d(3, C, 3), nn.GroupNorm(2, C))), X)["1"]
    assert (found.producer, found.source) == ("0", "input")
    assert (found.folded, found.implied, found.stem) == (None, None, None)


def test_a_recording_carries_it_through_a_file(tmp_path: Any):
    """Fails if a part of the answer is lost on disk."""
    net = random_vectors(
        nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C), nn.ReLU(), nn.Conv2d(C, 2, 1), nn.BatchNorm2d(2))
    )
    with bnprobe.attach(net) as probe, torch.no_grad():
        net(X)
    again = bnprobe.load(probe.recording.save(tmp_path / "a.bnp"))
    for one, other in zip(probe.recording.layers, again.layers, strict=True):
        np.testing.assert_equal(asdict(one.neighbours), asdict(other.neighbours))


SHAPE = (2, 3, 5, 7)
"""Pairwise distinct, so that no dimension is taken for another by its size."""

VIEWS: dict[str, tuple[str, tuple[Any, ...], Callable[[Tensor], Tensor]]] = {
    "transpose": ("transpose", (1, 3), lambda x: x.transpose(1, 3)),
    "transpose from behind": ("transpose", (-1, -3), lambda x: x.transpose(-1, -3)),
    "swapaxes": ("swapaxes", (0, 2), lambda x: x.swapaxes(0, 2)),
    "mT": ("mT", (), lambda x: x.mT),
    "permute": ("permute", ((0, 2, 3, 1),), lambda x: x.permute(0, 2, 3, 1)),
    "permute from behind": ("permute", ((-1, 0, -2, 1),), lambda x: x.permute(-1, 0, -2, 1)),
    "select": ("select", (1, 2), lambda x: x.select(1, 2)),
    "select the first": ("select", (0, 1), lambda x: x.select(0, 1)),
    "select from behind": ("select", (-1, 2), lambda x: x.select(-1, 2)),
    "unbind": ("unbind", (), lambda x: x.unbind()[0]),
    "unbind another": ("unbind", (2,), lambda x: x.unbind(2)[1]),
    "unbind from behind": ("unbind", (-2,), lambda x: x.unbind(-2)[1]),
    "roll": ("roll", (1, (2,)), lambda x: x.roll(1, (2,))),
    "roll from behind": ("roll", ((1, 1), (-1, 1)), lambda x: x.roll((1, 1), (-1, 1))),
    "flip": ("flip", ((1,),), lambda x: x.flip((1,))),
    "flip by a number": ("flip", (-1,), lambda x: x.flip(-1)),
    "clone": ("clone", (), lambda x: x.clone()),
    "slice": ("slice", (2, 0, 4), lambda x: x[:, :, :4]),
    "flatten behind": ("view", ((2, 3, 35),), lambda x: x.view(2, 3, 35)),
    "flatten in front": ("reshape", ((6, 5, 7),), lambda x: x.reshape(6, 5, 7)),
    "take apart": ("view", ((2, 3, 5, 7, 1),), lambda x: x.view(2, 3, 5, 7, 1)),
    "unsqueeze": ("unsqueeze", (0,), lambda x: x.unsqueeze(0)),
    "as many dimensions, others": ("view", ((6, 5, 7, 1),), lambda x: x.view(6, 5, 7, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_where_a_dimension_of_a_view_stood(name: str) -> None:
    """Fails if a dimension is followed to another one: what a dimension counts upwards is seen in torch's own view.

    A dimension is that of the input along which the view counts as the input did; none that is joined or turned over.
    """
    operation, args, view = VIEWS[name]
    shape = tuple(view(torch.zeros(SHAPE)).shape)
    node = Node(PASS, operation, shape, (Node(INPUT, "", SHAPE),), facts={"args": (None, *args)})
    expected: dict[int, int] = {}
    for dim, size in enumerate(SHAPE):
        along = [size if d == dim else 1 for d in range(len(SHAPE))]
        seen = view(torch.arange(size).reshape(along).expand(SHAPE).contiguous())
        for d, n in enumerate(seen.shape):
            counted = torch.arange(n).reshape([n if e == d else 1 for e in range(seen.dim())])
            if n > 1 and torch.equal(seen, counted.expand(seen.shape)):
                expected[d] = dim
    found = {d: dim_before(node, d) for d, n in enumerate(shape) if n > 1}
    assert found == {d: expected.get(d) for d in found}
    assert dim_before(node, None) is None


@pytest.mark.parametrize(
    ("operation", "below", "shape", "expected"),
    [
        ("movedim", SHAPE, (3, 2, 5, 7), [None] * 4),
        ("channel_shuffle", SHAPE, SHAPE, [None] * 4),
        ("unfold", SHAPE, (2, 3, 5, 3, 4), [None] * 5),
        ("pixel_shuffle", (2, 12, 5, 7), (2, 3, 10, 14), [None] * 4),
        ("as_strided", SHAPE, (2, 3, 5, 6), [None] * 4),
        ("as_strided", SHAPE, SHAPE, [0, 1, 2, 3]),
        ("alias", SHAPE, SHAPE, [0, 1, 2, 3]),
        ("constant_pad_nd", SHAPE, (2, 4, 5, 9), [0, 1, 2, 3]),
        ("expand", (2, 3, 1, 7), SHAPE, [0, 1, 2, 3]),
        ("transpose", (2, 3, 5), (3, 5), [0, 1]),
    ],
)
def test_views_that_tell_nothing_and_those_that_keep_places(
    operation: str, below: tuple[int, ...], shape: tuple[int, ...], expected: list[int | None]
) -> None:
    """Fails if channels that were mixed are followed, or a slice, padding or copy loses its dimensions."""
    node = Node(PASS, operation, shape, (Node(INPUT, "", below),), facts={"args": (None, 0, 0)})
    if operation == "transpose":  # of another number of dimensions it is judged by its sizes
        assert [dim_before(node, d) for d in range(len(shape))] == [1, 2]
    else:
        assert [dim_before(node, d) for d in range(len(shape))] == expected
    assert dim_before(Node(PASS, operation, shape), 1) is None


PLAIN = Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1, (9, 14), (7, 12))
AT_PADDING = Geometry((1, 1), ((1, 1), (2, 2)), (1, 1), 1, (9, 14), (7, 12))


def padded(pad: tuple[int, ...], *value: float, below: Node | None = None) -> Node:
    inner = below or Node(INPUT, "", (2, 3, 6, 9))
    return Node(PASS, "constant_pad_nd", (2, 3, 9, 14), (inner,), facts={"args": (None, pad, *value)})


@pytest.mark.parametrize(
    ("geometry", "node", "padding", "input_size"),
    [
        (PLAIN, padded((1, 4, 0, 3)), ((0, 3), (1, 4)), (6, 9)),
        (PLAIN, padded((1, 4, 0, 3), 0), ((0, 3), (1, 4)), (6, 9)),
        (AT_PADDING, padded((1, 4, 0, 3)), ((1, 4), (3, 6)), (6, 9)),
        (PLAIN, padded((1, 4)), ((0, 0), (1, 4)), (6, 9)),
        (PLAIN, padded((1, 4, 0, 3), 1.0), ((0, 0), (0, 0)), (9, 14)),
        (PLAIN, padded((-1, 4, 0, 3)), ((0, 0), (0, 0)), (9, 14)),
        (PLAIN, padded((1, 4, 0, 3, 1, 1)), ((0, 0), (0, 0)), (9, 14)),
        (PLAIN, padded((1, 1, 2, 0), below=padded((1, 4, 0, 3))), ((2, 3), (2, 5)), (6, 9)),
    ],
)
def test_zeros_before_a_convolution_count_as_its_own(
    geometry: Geometry, node: Node, padding: tuple[tuple[int, int], ...], input_size: tuple[int, ...]
) -> None:
    """Fails if pads are read from the front, a crop or another value counts as zeros, or two pads do not add up."""
    found, inner = _with_padding(geometry, node, 2)
    assert (found.padding, found.input_size) == (padding, input_size)
    assert (inner is node) == (input_size == (9, 14))
    transposed = replace(geometry, transposed=True)
    assert _with_padding(transposed, node, 2) == (transposed, node)
    assert _with_padding(Geometry(), node, 0) == (Geometry(), node)


A, B = (NormLayer("batch_norm", "batch", 3, 1e-5) for _ in "ab")
GAMMA = np.array([1.0, 2.0, 3.0])
NORMS = {
    ("a", 0): Known(A, GAMMA, -GAMMA, None, None),
    ("b", 1): Known(B, 2 * GAMMA, None, None, None),
    ("l", 0): Known(NormLayer("layer_norm", "channels", 7, 1e-5, channels="last"), None, None, None, None),
}


def made(name: str = "a", call: int = 0, shape: tuple[int, ...] = SHAPE) -> Node:
    return Node(SITE, "norm", shape, facts={"site": (name, call)})


def op(part: str, name: str, *inputs: Node, shape: tuple[int, ...] = SHAPE, **facts: Any) -> Node:
    return Node(part, name, shape, inputs, facts=facts)


def relu(node: Node) -> Node:
    return op(ACTIVATION, "relu", node, shape=node.shape)


def said(source: Source) -> str:
    """A source in one line."""
    what = source.site or source.what
    parts = f"({', '.join(map(said, source.parts))})" if source.parts else ""
    ways = [way for way in (source.activation, source.pool) if way not in ("none", "")]
    return " ".join([*ways, f"{what}{parts}:{source.n_channels}"])


POOLED = (2, 3, 2, 3)
X0 = Node(INPUT, "", SHAPE)
HALF = op(PASS, "slice", made(), shape=(2, 2, 5, 7), args=(None, 1, 0, 2))
CASES = {
    "a norm": (made(), "a:3"),
    "its second call": (made("b", 1), "b (call 2):3"),
    "a norm that is not known": (made("c"), "unknown:0"),
    "a norm over the last dimension": (made("l"), "unknown:0"),
    "the input": (X0, "input:3"),
    "an activation": (relu(made()), "relu a:3"),
    "two activations": (op(ACTIVATION, "tanh", relu(made())), "unknown:0"),
    "a pool": (op(MARK, "max_pool", relu(made()), shape=POOLED), "relu max a:3"),
    "a mean over positions": (op(OTHER, "avg_pool", made(), shape=POOLED), "avg a:3"),
    "a mean that drops dimensions": (op(OTHER, "avg_pool", made(), shape=(2, 3)), "unknown:0"),
    "two pools": (op(MARK, "max_pool", op(MARK, "max_pool", made(), shape=POOLED), shape=POOLED), "unknown:0"),
    "activated after a pool": (relu(op(MARK, "max_pool", made(), shape=POOLED)), "unknown:0"),
    "pooled, after activation, after pool": (
        op(MARK, "max_pool", relu(op(MARK, "max_pool", made(), shape=POOLED)), shape=POOLED),
        "unknown:0",
    ),
    "half of the channels": (HALF, "unknown:0"),
    "positions that were flattened": (op(PASS, "view", made(), shape=(2, 3, 35)), "a:3"),
    "channels that were joined": (op(PASS, "view", made(), shape=(2, 105)), "unknown:0"),
    "a sum": (op(ADD, "add", made(), relu(made("b", 1))), "sum(a:3, relu b (call 2):3):3"),
    "a sum, activated": (relu(op(ADD, "add", made(), X0)), "relu sum(a:3, input:3):3"),
    "a sum with what is not known": (op(ADD, "add", made(), made("c")), "sum(a:3, unknown:0):3"),
    "a sum of what is not known": (op(ADD, "add", made("c"), made("c")), "unknown:0"),
    "a sum that broadcasts": (op(ADD, "add", made(), Node(LEAF, "", (3, 1, 1))), "unknown:0"),
    "a sum of three": (op(ADD, "add", made(), made(), made()), "unknown:0"),
    "a concatenation": (
        op(MARK, "cat", made(), relu(X0), shape=(2, 6, 5, 7), dim=1),
        "concat(a:3, relu input:3):6",
    ),
    "counted from behind": (op(MARK, "cat", made(), X0, shape=(2, 6, 5, 7), dim=-3), "concat(a:3, input:3):6"),
    "one in another": (
        op(MARK, "cat", op(MARK, "cat", X0, X0, shape=(2, 6, 5, 7), dim=1), made(), shape=(2, 9, 5, 7), dim=1),
        "concat(input:3, input:3, a:3):9",
    ),
    "one in another, activated": (
        op(MARK, "cat", relu(op(MARK, "cat", X0, X0, shape=(2, 6, 5, 7), dim=1)), made(), shape=(2, 9, 5, 7), dim=1),
        "concat(relu concat(input:3, input:3):6, a:3):9",
    ),
    "nothing known in it": (op(MARK, "cat", made("c"), made("c"), shape=(2, 6, 5, 7), dim=1), "unknown:0"),
    "the same images again": (op(MARK, "cat", made(), made(), shape=(4, 3, 5, 7), dim=0), "a:3"),
    "other images": (op(MARK, "cat", made(), X0, shape=(4, 3, 5, 7), dim=0), "unknown:0"),
    "stacked": (op(MARK, "cat", made(), made(), shape=(2, 2, 3, 5, 7), dim=0), "unknown:0"),
    "zeros in front and behind": (
        op(PASS, "constant_pad_nd", made(), shape=(2, 6, 5, 7), args=(None, (0, 0, 0, 0, 2, 1))),
        "concat(norm:2, a:3, norm:1):6",
    ),
    "zeros behind": (
        op(PASS, "constant_pad_nd", relu(made()), shape=(2, 4, 5, 7), args=(None, (0, 0, 0, 0, 0, 1), 0)),
        "concat(relu a:3, norm:1):4",
    ),
    "ones": (
        op(PASS, "constant_pad_nd", made(), shape=(2, 4, 5, 7), args=(None, (0, 0, 0, 0, 0, 1), 1)),
        "unknown:0",
    ),
    "zeros around positions too": (
        op(PASS, "constant_pad_nd", made(), shape=(2, 4, 5, 8), args=(None, (0, 1, 0, 0, 0, 1))),
        "unknown:0",
    ),
    "zeros for images too": (
        op(PASS, "constant_pad_nd", made(), shape=(3, 4, 5, 7), args=(None, (0, 0, 0, 0, 0, 1, 0, 1))),
        "unknown:0",
    ),
    "too few pads": (
        op(PASS, "constant_pad_nd", made(), shape=(2, 4, 5, 7), args=(None, (0, 0, 0, 0))),
        "unknown:0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_values_are_made_of(name: str) -> None:
    """Fails if channels are ascribed to what did not make them, in this order and number."""
    node, expected = CASES[name]
    assert said(source_of(node, 1, NORMS)) == expected


def test_sources_hold_the_vectors_of_their_norms() -> None:
    """Fails if γ is taken for β, or channels of zeros have any."""
    found = source_of(made(), 1, NORMS)
    assert found.gamma is GAMMA
    assert found.beta is NORMS["a", 0].beta
    zeros = source_of(CASES["zeros in front and behind"][0], 1, NORMS).parts[0]
    assert zeros.gamma is not None
    assert zeros.beta is not None
    assert (zeros.gamma.tolist(), zeros.beta.tolist()) == ([0, 0], [0, 0])


def test_sums_are_followed_to_a_depth() -> None:
    """Fails if a chain of as many sums as are followed is cut, or a longer one is not."""

    def chain(n: int) -> Node:
        node = made()
        for _ in range(n):
            node = op(ADD, "add", node, made("c"))
        return node

    def depth_of(source: Source) -> int:
        return 1 + depth_of(source.parts[0]) if source.parts else 0

    assert depth_of(source_of(chain(DEEPEST), 1, NORMS)) == DEEPEST
    assert source_of(chain(DEEPEST + 1), 1, NORMS).what == "unknown"
    assert source_of(made(), None, NORMS).what == "unknown"


@pytest.mark.parametrize(
    ("plan", "n_dims", "dim"),
    [
        (A, 4, 1),
        (replace(A, unbatched_dims=3), 3, 0),
        (replace(A, unbatched_dims=3), 4, 1),
        (NormLayer("layer_norm", "channels", 7, 1e-5, channels="last"), 4, 3),
        (NormLayer("layer_norm", "channels", 35, 1e-5, channels="last", n_channel_dims=2), 4, None),
    ],
)
def test_where_the_channels_of_a_norm_stand(plan: NormLayer, n_dims: int, dim: int | None) -> None:
    """Fails if channels are looked for in another dimension, or in one of several."""
    assert Known(plan, None, None, None, None).channel_dim(n_dims) == dim


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (((4, 6), (6,)), True),
        (((6,), (6,)), True),
        (((4, 6), (4,)), False),
        (((4, 6), (1, 6)), False),
        (((4, 6), (6,), (6,)), False),
    ],
)
def test_a_bias_that_is_added_by_itself(shapes: tuple[tuple[int, ...], ...], expected: bool) -> None:
    """Fails if a parameter of another shape, or one of several terms, is a bias; or one behind a cast is none."""
    values, *leaves = shapes
    terms = [Node(LEAF, "", shape, facts={"tensor": torch.zeros(shape)}) for shape in leaves]
    cast = Node(PASS, "_to_copy", leaves[0], (terms[0],))
    for first in (terms[0], cast):
        assert _is_bias(op(ADD, "add", Node(INPUT, "", values), first, *terms[1:], shape=values)) is expected
    both = [Node(LEAF, "", (6,), facts={"tensor": torch.zeros(6)}) for _ in "ab"]
    assert not _is_bias(op(ADD, "add", *both, shape=(6,)))
    assert not _is_bias(op(MUL, "mul", Node(INPUT, "", values), *terms, shape=values))
    made_of_one = op(ACTIVATION, "relu", terms[0], shape=leaves[0])
    assert not _is_bias(op(ADD, "add", Node(INPUT, "", values), made_of_one, shape=values))
    assert not _is_bias(op(ADD, "add", Node(INPUT, "", values), Node(PASS, "alias", leaves[0]), shape=values))
    assert not _is_bias(op(ADD, "add", Node(INPUT, "", values), Node(LEAF, "", (6,)), shape=values))


@pytest.mark.parametrize(
    ("views", "turned", "stored_as"),
    [
        ([], False, "as it is"),
        ([], True, "turned"),
        (["t"], True, "as it is"),
        (["t"], False, "turned"),
        (["_to_copy", "t"], True, "as it is"),
        (["t", "detach", "t"], False, "as it is"),
        (["flip"], False, "the call's"),
        (["flip"], True, "the call's, turned"),
    ],
)
def test_the_weight_is_the_parameter_where_only_casts_stand_before_it(
    views: list[str], turned: bool, stored_as: str
) -> None:
    """Fails if a turned weight is not turned back, or what a view made of it is passed over."""
    parameter, of_call = torch.arange(6.0).reshape(2, 3), 10 + torch.arange(6.0).reshape(2, 3)
    node = Node(LEAF, "", (2, 3), facts={"tensor": parameter})
    for view in views:
        node = Node(PASS, view, (2, 3), (node,))
    found = _weight(
        Node(WEIGHTS, "linear", (1,), facts={"weight": of_call, "turned": turned, "weight_node": node})
    )
    expected = {
        "as it is": parameter,
        "turned": parameter.T,
        "the call's": of_call,
        "the call's, turned": of_call.T,
    }[stored_as]
    np.testing.assert_array_equal(found, expected.numpy())
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.float64, "float64"), (torch.float32, "float32"), (torch.bfloat16, "float32")]
)
def test_numbers_are_a_copy_in_the_precision_that_they_have(dtype: torch.dtype, kept: str) -> None:
    """Fails if digits of float64 are lost, or the parameter itself is handed out."""
    tensor = torch.tensor([1.0, 2.0], dtype=dtype)
    found = numbers(tensor)
    tensor.zero_()
    assert (str(found.dtype), found.tolist()) == (kept, [1.0, 2.0])


@pytest.mark.parametrize("kind", ["pads", "concatenations", "more images"])
def test_what_is_nested_is_followed_to_a_depth(kind: str) -> None:
    """Fails if a level counts twice, or not at all: as many as are followed, and one more."""

    def chain(n: int) -> Node:
        node = made()
        for _ in range(n):
            channels = node.shape[1] + 1
            if kind == "pads":
                pad = (0, 0, 0, 0, 0, 1)
                node = op(PASS, "constant_pad_nd", node, shape=(2, channels, 5, 7), args=(None, pad))
            elif kind == "concatenations":
                one = Node(LEAF, "", (2, 1, 5, 7))
                node = op(MARK, "cat", node, one, shape=(2, channels, 5, 7), dim=1)
            else:
                node = op(MARK, "cat", node, node, shape=(2 * node.shape[0], *node.shape[1:]), dim=0)
        return node

    def at(n: int) -> Source:
        return source_of(chain(n), 1, NORMS, depth=DEEPEST - 5)

    assert (at(5).site or at(5).parts[0].site) == "a"
    assert at(6).what == "unknown" or at(6).parts[0].what == "unknown"


def test_zeros_beside_what_is_not_known_are_not_known() -> None:
    """Fails if only the channels of zeros are left, as those of the whole."""
    pad = (0, 0, 0, 0, 2, 1)
    unknown = op(PASS, "constant_pad_nd", made("c"), shape=(2, 6, 5, 7), args=(None, pad))
    assert said(source_of(unknown, 1, NORMS)) == "unknown:0"


PARAMETER = Node(LEAF, "", (6, 3), facts={"name": "conv.weight", "tensor": torch.zeros(6, 3, 3, 3)})


def fed_by(*way: str, weight: Node = PARAMETER, norm: str = "n", channels: str = "first") -> Node:
    """A norm after a convolution, with what stands between, from the convolution on."""
    node = Node(
        WEIGHTS,
        "conv",
        (2, 6, 5, 7),
        (Node(INPUT, "", (2, 3, 7, 9)),),
        facts={
            "layer": "conv",
            "weight_node": weight,
            "weight": weight.facts.get("tensor"),
            "bias": None,
            "turned": False,
            "geometry": Geometry((1, 1), ((0, 0), (0, 0)), (1, 1), 1, (7, 9), (5, 7)),
        },
    )
    for name in way:
        if name == "bias":
            node = op(
                ADD, "add", node, Node(LEAF, "", (7,), facts={"tensor": torch.ones(7)}), shape=node.shape
            )
        elif name == "skip":
            node = op(ADD, "add", node, Node(INPUT, "", node.shape), shape=node.shape)
        elif name == "turn":
            node = op(PASS, "transpose", node, shape=(2, 7, 5, 6), args=(None, 1, 3))
        else:
            node = op(PASS, name, node, shape=node.shape, args=(None,))
    return Node(SITE, "norm", node.shape, (node,), facts={"site": (norm, 0)})


FED = NORMS | {("n", 0): Known(replace(A, n_channels=6), None, None, None, None)}


@pytest.mark.parametrize(
    ("way", "name", "has_numbers"),
    [
        ([], "conv", True),
        (["clone", "contiguous"], "conv", True),
        (["turn"], "conv", False),
        (["turn", "turn"], "conv", True),
        (["skip"], "", False),
        (["bias"], "conv", True),
        (["clone", "bias", "clone"], "conv", True),
        (["bias", "bias"], "", False),
    ],
)
def test_the_layer_behind_views_and_a_bias(way: list[str], name: str, has_numbers: bool) -> None:
    """Fails if a sum with a skip is a bias, two biases are one, or channels that were turned are the layer's."""
    found, numbers_of = producer.producer_of(fed_by(*way), FED)
    assert (found, numbers_of is not None) == (name, has_numbers)
    if numbers_of is not None:
        assert (numbers_of.bias is None) == ("bias" not in way)
        assert (numbers_of.name, numbers_of.source.what, numbers_of.source.n_channels) == ("conv", "input", 3)


def test_a_layer_without_numbers() -> None:
    """Fails if weights that depend on the input, or the layer before a norm that is not known, have numbers."""
    computed = op(MUL, "mul", PARAMETER, Node(INPUT, "", ()), shape=(6, 3))
    assert producer.producer_of(fed_by(weight=computed), FED) == ("conv", None)
    assert producer.producer_of(fed_by(norm="stranger"), FED) == ("conv", None)
    assert producer.producer_of(Node(SITE, "norm", SHAPE, (X0,), facts={"site": ("n", 0)}), FED) == ("", None)
    bare = Node(SITE, "norm", SHAPE, (Node(PASS, "alias", SHAPE),), facts={"site": ("n", 0)})
    assert producer.producer_of(bare, FED) == ("", None)


def test_a_site_in_words() -> None:
    """Fails if the first call is counted, or others are counted from 0."""
    assert [producer.label(("bn", call)) for call in range(3)] == ["bn", "bn (call 2)", "bn (call 3)"]


@pytest.mark.parametrize(
    ("shape", "n", "pad", "padding", "size"),
    [
        ((2, 3, 9), 1, (1, 4), ((1, 4),), (9,)),
        ((3, 6, 9), 2, (1, 4, 0, 3), ((0, 3), (1, 4)), (6, 9)),
        ((2, 3, 4, 6, 9), 3, (1, 4, 0, 3, 5, 2), ((5, 2), (0, 3), (1, 4)), (4, 6, 9)),
        ((2, 3, 4, 6, 9), 3, (1, 4, 0, 3), ((0, 0), (0, 3), (1, 4)), (4, 6, 9)),
    ],
)
def test_zeros_before_signals_volumes_and_lone_images(
    shape: tuple[int, ...], n: int, pad: tuple[int, ...], padding: Any, size: tuple[int, ...]
) -> None:
    """Fails if sizes or pads are counted from the front, where the batch may be missing."""
    node = op(PASS, "constant_pad_nd", Node(INPUT, "", shape), shape=(), args=(None, pad))
    found, inner = _with_padding(Geometry((1,) * n, ((0, 0),) * n, (1,) * n), node, n)
    assert (found.padding, found.input_size, inner.shape) == (padding, size, shape)
