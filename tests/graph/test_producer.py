"""The layer before a norm and what went into it: names, geometry, sources; and when the answer is that none is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import bnprobe
from bnprobe.graph import producer
from bnprobe.graph.geometry import Geometry, Producer
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
