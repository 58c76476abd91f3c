"""The weights before a norm, on whatever way their output comes to it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from support.gradients import loss_of
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.norms import describe
from bnprobe.probe.backward.autograd_producer import producer
from bnprobe.recording import ProducerRecord

IN, OUT = 6, 4


class Then(nn.Module):
    """A layer with `weight`, what happens to its output, and a norm."""

    def __init__(self, layer: nn.Module, way: Callable[[Tensor], Tensor], norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.way, self.norm = layer, way, norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.way(self.layer(x)))


def found(model: Then, x: Tensor, cast: bool = False) -> ProducerRecord | None:
    """What the probe knows of the weights before the norm after one backward pass."""
    with bnprobe.attach(model) as probe, torch.autocast("cpu", torch.bfloat16, enabled=cast):
        loss_of(model(x).float()).backward()
    (record,) = probe.recording.layers
    assert record.gradient is not None
    return record.gradient.producer


def assert_the_weights(model: Then, x: Tensor, dim: int = 0, cast: bool = False) -> None:
    """The lengths of the weights of each output (dimension `dim`), of their gradient, and the angle of a step."""
    seen = found(model, x, cast)
    assert seen is not None, "the weights before the norm were not found"
    w, g = (
        t.detach().double().movedim(dim, 0).flatten(1) for t in (model.layer.weight, model.layer.weight.grad)
    )
    across = g - w * (g * w).sum(1, keepdim=True) / (w * w).sum(1, keepdim=True)
    np.testing.assert_allclose(seen.norm.mean, w.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(seen.grad_norm.mean, g.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(seen.angle.mean, across.norm(dim=1) / w.norm(dim=1), rtol=1e-4)


def straight(x: Tensor) -> Tensor:
    return x


# Linear layers

SHAPES = {
    "vector": (IN,),
    "rows": (5, IN),
    "tokens": (5, 7, IN),
    "windows": (2, 3, 7, IN),
    "one row": (5, 1, IN),
}
LAYOUTS = {
    "contiguous": straight,
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "expanded": lambda x: x[..., :1, :].expand(x.shape),
    "every second": lambda x: x.repeat_interleave(2, -2)[..., ::2, :],
}


@pytest.mark.parametrize("cast", [False, True], ids=["as it is", "autocast"])
@pytest.mark.parametrize("wanted", [False, True], ids=["data", "activations"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_linear_layers(bias, shape, layout, wanted, cast):
    """Fails if the weights are lost behind one of the ways in which some release of torch takes a linear layer apart."""
    if shape == "vector" and layout != "contiguous":
        layout = "contiguous"
    model = Then(nn.Linear(IN, OUT, bias=bias), straight, nn.LayerNorm(OUT))
    x = LAYOUTS[layout](torch.randn(SHAPES[shape]).requires_grad_(wanted))
    assert_the_weights(model, x, cast=cast)


class Columns(nn.Module):
    """A linear layer whose outputs are the columns of its weight, as GPT-2 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(IN, OUT)), nn.Parameter(torch.randn(OUT))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, IN), self.weight).view(*x.shape[:-1], OUT)


class Written(nn.Linear):
    """A linear layer written out: `how` takes x, weight and bias."""

    def __init__(
        self, how: Callable[[Tensor, Tensor, Tensor], Tensor], shape: tuple[int, ...] = (OUT, IN)
    ) -> None:
        super().__init__(IN, OUT)
        self.how, self.weight = how, nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.how(x, self.weight, self.bias)


WRITTEN = {
    "matmul": lambda x, w, b: x @ w.t() + b,
    "bias first": lambda x, w, b: b + x @ w.mT,
    "permuted": lambda x, w, b: x @ w.permute(1, 0) + b,
    "einsum": lambda x, w, b: torch.einsum("ntc,dc->ntd", x, w) + b,
    "in place": lambda x, w, b: (x @ w.T).add_(b),
    "addmm": lambda x, w, b: torch.addmm(b, x.flatten(0, 1), w.t()).unflatten(0, x.shape[:2]),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_linear_layers_that_are_written_out(how):
    """Fails if only nn.Linear counts as one."""
    assert_the_weights(Then(Written(WRITTEN[how]), straight, nn.LayerNorm(OUT)), torch.randn(5, 7, IN))


def test_weights_that_lie_on_their_side():
    """Fails if rows of a weight of shape (inputs, outputs) are taken for its outputs."""
    assert_the_weights(Then(Columns(), straight, nn.LayerNorm(OUT)), torch.randn(5, 7, IN), dim=1)


def test_the_weight_of_a_convolution_as_a_matrix():
    """Fails if a parameter in another shape is lost, or its rows come in another order than their gradient's."""
    layer = Written(lambda x, w, b: F.linear(x, w.flatten(1), b), (OUT, IN, 1, 1))
    assert_the_weights(Then(layer, straight, nn.LayerNorm(OUT)), torch.randn(5, 7, IN))


# What happens between the layer and the norm

LINEAR, CONVOLUTION = partial(nn.Linear, IN, OUT), partial(nn.Conv2d, IN, OUT, 3)
TOKENS, IMAGES = (5, 7, IN), (2, IN, 5, 7)
BETWEEN = {
    "patches": (CONVOLUTION, lambda y: y.flatten(2).mT, nn.LayerNorm, IMAGES),
    "channels last": (CONVOLUTION, lambda y: y.permute(0, 2, 3, 1), nn.LayerNorm, IMAGES),
    "channels first": (LINEAR, lambda y: y.transpose(-2, -1), nn.BatchNorm1d, TOKENS),
    "moved": (LINEAR, lambda y: y.movedim(-1, 1), lambda n: nn.GroupNorm(2, n), TOKENS),
    "one sample": (CONVOLUTION, straight, nn.InstanceNorm2d, IMAGES[1:]),
    "rows of tokens": (LINEAR, lambda y: y.flatten(0, 1), nn.BatchNorm1d, TOKENS),
    "a cast": (LINEAR, Tensor.double, lambda n: nn.LayerNorm(n).double(), TOKENS),
    "a copy": (LINEAR, lambda y: y.mT.contiguous().mT, nn.LayerNorm, TOKENS),
    "a dimension more": (LINEAR, lambda y: y[:, None].squeeze(1), nn.LayerNorm, TOKENS),
    "of text": (lambda: nn.Conv1d(IN, OUT, 3, bias=False), straight, nn.BatchNorm1d, (5, IN, 7)),
}


@pytest.mark.parametrize("way", BETWEEN)
def test_what_only_renames_places_is_passed(way):
    """Fails if a transposition, a view or a cast between the layer and the norm hides the weights."""
    layer, between, norm, shape = BETWEEN[way]
    assert_the_weights(Then(layer(), between, norm(OUT)), torch.randn(shape))


OTHERS = {
    "a residual": (LINEAR, lambda y: y + y.tanh(), nn.LayerNorm),
    "positions": (
        lambda: nn.Linear(IN, OUT, bias=False),
        lambda y: y + nn.Parameter(torch.randn(7, OUT)),
        nn.LayerNorm,
    ),
    "two biases": (LINEAR, lambda y: y + nn.Parameter(torch.randn(OUT)), nn.LayerNorm),
    "some samples": (LINEAR, lambda y: y[1:], nn.LayerNorm),
    "positions as channels": (lambda: nn.Linear(IN, 7), lambda y: y.mT, lambda _: nn.LayerNorm(7)),
    "samples as channels": (lambda: nn.Linear(IN, 5), lambda y: y.movedim(0, -1), lambda _: nn.LayerNorm(5)),
    "both as channels": (lambda: nn.Linear(IN, 5), lambda y: y.view(7, 5, 5), lambda _: nn.BatchNorm1d(5)),
    "a part": (lambda: nn.Linear(IN, 2 * OUT), lambda y: y.chunk(2, -1)[0], nn.LayerNorm),
    "heads": (lambda: nn.Linear(IN, 3 * OUT), lambda y: y.view(5, 7, 3, OUT), nn.LayerNorm),
    "columns of an image": (lambda: nn.Conv1d(7, IN, 1), straight, lambda _: nn.LayerNorm(IN)),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_weights_are_not_claimed(what):
    """Fails if weights are named whose outputs are not the norm's channels, or not all that the norm is given."""
    layer, between, norm = OTHERS[what]
    assert found(Then(layer(), between, norm(OUT)), torch.randn(5, 7, IN)) is None


class Linear(torch.autograd.Function):
    """A user's function of the name of a node of torch's, with another meaning."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias).cumsum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.flatten(0, 1).t() @ x.flatten(0, 1), gradient.sum((0, 1))


NO_LAYERS = {
    "a scaled bias": lambda x, w, b: torch.add(x @ w.t(), b, alpha=2),
    "a scaled product": lambda x, w, b: torch.addmm(b, x[0], w.t(), alpha=2),
    "a bias per row, added": lambda x, w, b: x[:, :OUT] @ w.t() + b[:, None],
    "a bias per row": lambda x, w, b: torch.addmm(b[:, None], x[0, :OUT], w.t()),
    "a frozen bias": lambda x, w, b: F.linear(x, w, b.detach()),
    "a frozen bias, added": lambda x, w, b: x @ w.t() + b.detach(),
    "a user's function": Linear.apply,
}


@pytest.mark.parametrize("how", NO_LAYERS)
def test_products_that_are_no_layers_are_not_claimed(how):
    """Fails if a product counts whose bias is another, is out of reach, or that is not torch's own."""
    assert found(Then(Written(NO_LAYERS[how]), straight, nn.LayerNorm(OUT)), torch.randn(5, 7, IN)) is None


@pytest.mark.parametrize(
    ("how", "shape"),
    [
        (lambda x, w, b: x @ w, (5, IN, OUT)),
        (lambda x, w, b: F.linear(x, w.transpose(1, 2).flatten(1), b), (OUT, 2, 3)),
    ],
    ids=["a matrix per sample", "another order"],
)
def test_weights_whose_rows_are_not_their_gradients_are_not_claimed(how, shape):
    """Fails if an angle is measured between rows that hold their numbers in another order, or several rows each."""
    assert found(Then(Written(how, shape), straight, nn.LayerNorm(OUT)), torch.randn(5, 7, IN)) is None


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_linear_layer_that_is_one_node(bias):
    """Fails if weights are lost on a device that does not take a linear layer apart, or a bias is said to be 0 there."""
    layer = nn.Linear(IN, OUT, bias=bias)
    edges = [(None, 0), *((p.view_as(p).grad_fn.next_functions[0]) for p in layer.parameters())]
    node = SimpleNamespace(
        name=lambda: "LinearBackward0",
        next_functions=(*edges, (None, 0))[:3],
        _input_metadata=(SimpleNamespace(shape=(5, 7, OUT)),),
    )
    (plan,) = describe(nn.LayerNorm(OUT))
    seen = producer(node, 0, plan)
    assert seen is not None
    assert seen.weight is layer.weight
    assert seen.bias is layer.bias if bias else bool(seen.bias.isnan().all())
    assert torch.equal(seen.rows(layer.weight), layer.weight)
