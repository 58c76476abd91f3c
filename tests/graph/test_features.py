"""Batch norms over sequences whose neighbors have features in another dimension than the norm its channels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bnprobe.graph import features
from bnprobe.graph.geometry import Geometry
from bnprobe.graph.graph import Node
from bnprobe.graph.producer import DEEPEST
from graph.watched import neighbours_of

N, T, F, H = 4, 12, 6, 8


def turned(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


class Net(nn.Module):
    """A norm among layers that `how` puts together."""

    def __init__(self, norm: nn.Module, how: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.norm, self.how = norm, how
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def looped(cell: nn.Module, x: Tensor, dim: int = 1) -> Tensor:
    """The states of a cell (samples, H), side by side."""
    states = [torch.zeros(len(x), H)]
    for step in x.unbind(1):
        states.append(cell(step, states[-1]))
    return torch.stack(states[1:], dim)


def over(n: int) -> nn.Module:
    return nn.BatchNorm1d(n)


SEQUENCES = (N, T, F)
OUT = {"out": nn.Linear(H, 2)}
WRONG = {
    "an LSTM before": (
        Net(
            over(T),
            lambda m, x: m.out(m.norm(m.rnn(x)[0])[:, -1]),
            rnn=nn.LSTM(F, H, batch_first=True),
            **OUT,
        ),
        "recurrent before, linear after",
    ),
    "a GRU before": (
        Net(
            over(T), lambda m, x: m.out(m.norm(m.rnn(x)[0])[:, -1]), rnn=nn.GRU(F, H, batch_first=True), **OUT
        ),
        "recurrent before, linear after",
    ),
    "an RNN of two directions and layers before": (
        Net(
            over(T),
            lambda m, x: m.out(m.norm(m.rnn(x)[0])[:, -1]),
            rnn=nn.RNN(F, H // 2, 2, batch_first=True, bidirectional=True),
            **OUT,
        ),
        "recurrent before, linear after",
    ),
    "a cell in a loop before": (
        Net(over(T), lambda m, x: m.out(m.norm(looped(m.cell, x))[:, -1]), cell=nn.GRUCell(F, H), **OUT),
        "recurrent before, linear after",
    ),
    "a linear layer before, then a mean": (
        Net(over(T), lambda m, x: m.norm(m.lin(x)).mean(1), lin=nn.Linear(F, H)),
        "linear before",
    ),
    "a sum before": (
        Net(
            over(T),
            lambda m, x: m.out(m.norm(x.repeat(1, 1, 2)[..., :H] + m.lin(x).relu())),
            lin=nn.Linear(F, H),
            **OUT,
        ),
        "linear before, linear after",
    ),
    "a raw series": (
        Net(over(T), lambda m, x: m.lin(torch.relu(m.norm(x))), lin=nn.Linear(F, H)),
        "linear after",
    ),
    "a linear layer after that keeps the shape": (
        Net(over(T), lambda m, x: m.lin(m.norm(x)).mean(1), lin=nn.Linear(F, F)),
        "linear after",
    ),
    "a sum after": (
        Net(over(T), lambda m, x: m.lin(m.norm(x) + x), lin=nn.Linear(F, H)),
        "linear after",
    ),
    "a sum after another dimension was put in front": (
        Net(over(T), lambda m, x: m.lin(m.norm(x)[None] + x[None]), lin=nn.Linear(F, H)),
        "linear after",
    ),
    "a layer norm before": (
        Net(over(T), lambda m, x: m.norm(m.ln(x)).mean(1), ln=nn.LayerNorm(F)),
        "norm before",
    ),
}
LAST_BEFORE = (
    *(
        "an LSTM before",
        "a GRU before",
        "an RNN of two directions and layers before",
        "a cell in a loop before",
    ),
    *("a linear layer before, then a mean", "a sum before"),
)
"""Where a layer before the norm made H features of the F of the inputs."""

RIGHT = {
    "a convolution before": Net(
        over(H), lambda m, x: m.norm(m.conv(turned(x))).mean(2), conv=nn.Conv1d(F, H, 3)
    ),
    "transposed": Net(
        over(H), lambda m, x: m.out(turned(m.norm(turned(m.lin(x))))), lin=nn.Linear(F, H), **OUT
    ),
    "flattened": Net(over(H), lambda m, x: m.out(m.norm(m.lin(x).flatten(0, 1))), lin=nn.Linear(F, H), **OUT),
    "a GRU, transposed": Net(
        over(H), lambda m, x: m.norm(turned(m.rnn(x)[0])).mean(2), rnn=nn.GRU(F, H, batch_first=True)
    ),
    "states of a cell put side by side in the last dimension": Net(
        over(H), lambda m, x: m.norm(looped(m.cell, x, -1)).mean(2), cell=nn.GRUCell(F, H)
    ),
    "views of one series side by side": Net(
        over(2), lambda m, x: m.norm(torch.stack([x[:, 0], x[:, 1]], 1)).mean(1)
    ),
    "time is mixed before": Net(
        over(F),
        lambda m, x: m.lin(turned(m.norm(m.mix(turned(x))).relu())),
        mix=nn.Linear(T, T),
        lin=nn.Linear(F, H),
    ),
    "a convolution after": Net(over(F), lambda m, x: m.conv(m.norm(turned(x))), conv=nn.Conv1d(F, H, 3)),
    "frequencies of an image": Net(
        nn.BatchNorm2d(N), lambda m, x: m.norm(m.mix(turned(x)[None])), mix=nn.Linear(T, T)
    ),
    "a term that is the same for all positions": Net(
        over(T), lambda m, x: m.norm(x + m.lin(x[:, :1])).mean(1), lin=nn.Linear(F, F)
    ),
    "a sum of more dimensions, behind which nothing is known": Net(
        over(T), lambda m, x: m.lin(m.norm(x) + x[None].repeat(2, 1, 1, 1)), lin=nn.Linear(F, H)
    ),
    "positions and features joined": Net(
        over(T), lambda m, x: m.lin(m.norm(x).flatten(1)), lin=nn.Linear(T * F, H)
    ),
    "a layer norm": Net(nn.LayerNorm(H), lambda m, x: m.out(m.norm(m.lin(x))), lin=nn.Linear(F, H), **OUT),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", WRONG)
def test_features_in_the_last_dimension(case: str, training: bool):
    """Fails if one of the sides is not seen, past views, sums and activations, or the size is that of the channels."""
    net, expected = WRONG[case]
    found = neighbours_of(net.train(training), torch.randn(SEQUENCES))["norm"]
    assert found.features_elsewhere == expected
    assert found.n_last == (H if case in LAST_BEFORE else F)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", RIGHT)
def test_features_where_the_channels_are(case: str, training: bool):
    """Fails if a norm whose channels are those of a neighbor, or that is not over sequences, is taken for wrong."""
    found = neighbours_of(RIGHT[case].train(training), torch.randn(SEQUENCES))["norm"]
    assert found.features_elsewhere == ""


@pytest.mark.parametrize(("steps", "found"), [(5, "linear after"), (4, "")])
def test_the_walk_behind_a_norm_ends(steps: int, found: str, monkeypatch: pytest.MonkeyPatch):
    """Fails if a large network is walked on and on, or a step too few: norm, three activations, a view, the product."""
    monkeypatch.setattr(features, "MOST_STEPS", steps)
    net = Net(over(T), lambda m, x: m.lin(m.norm(x).relu().tanh().relu()), lin=nn.Linear(F, H))
    assert neighbours_of(net.eval(), torch.randn(SEQUENCES))["norm"].features_elsewhere == found


IMAGES = (N, 3, H, H)
CONV = {
    "conv": nn.Conv2d(3, H, 3, padding=1),
    "more": nn.Conv2d(H, H, 3),
    "wide": nn.Conv2d(3, 2 * H, 3, padding=1),
}


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda m, x: m.more(m.norm(m.conv(x)).relu()), "conv before, conv after"),
        (lambda m, x: m.norm(m.conv(x)).mean(), "conv before"),
        (lambda m, x: m.more(m.norm(channels_last(m.conv(x))).movedim(-1, 1)), ""),
        (lambda m, x: m.norm(channels_last(m.conv(x))).mean(), ""),
        # the width is another one, so that it was meant
        (lambda m, x: m.norm(m.conv(x[:, :, :4]).transpose(1, 2)[:, :2]).mean(), ""),
        (lambda m, x: m.norm(m.wide(x[:, :, :4])).mean(), ""),
    ],
)
def test_a_layer_norm_over_the_width_of_an_image(how: Callable[[Net, Tensor], Tensor], expected: str):
    """Fails if a layer norm between convolutions over as many positions as features is not seen, or one over features is."""
    found = neighbours_of(Net(nn.LayerNorm(H), how, **CONV), torch.randn(IMAGES))["norm"]
    assert found.features_elsewhere == expected


ROW_NORM = nn.InstanceNorm1d(N, affine=True)


@pytest.mark.parametrize(
    ("net", "x", "expected"),
    [
        (Net(ROW_NORM, lambda m, x: m.out(m.norm(m.lin(x))), lin=nn.Linear(F, H), out=nn.Linear(H, F)),
         (N, F), "linear before, linear after"),
        (Net(ROW_NORM, lambda m, x: m.norm(m.lin(x)).mean(), lin=nn.Linear(F, H)), (N, F), "linear before"),
        (Net(ROW_NORM, lambda m, x: m.norm(m.conv(x)).mean(), conv=nn.Conv1d(3, N, 3)), (3, T), ""),
        (Net(ROW_NORM, lambda m, x: m.norm(m.conv(x)).mean(), conv=nn.Conv1d(3, N, 3)), (2, 3, T), ""),
        (Net(ROW_NORM, lambda m, x: m.lin(m.norm(x)), lin=nn.Linear(T, H)), (2, N, T), ""),
    ],
    ids=["rows", "before", "one sample of a convolution", "its batch", "a linear layer along time"],
)  # fmt: skip
def test_an_instance_norm_of_rows(net: Net, x: tuple[int, ...], expected: str):
    """Fails if rows of features are not told from one sample (channels, positions), or of several the time is."""
    assert neighbours_of(net.eval(), torch.randn(x))["norm"].features_elsewhere == expected


def test_a_batch_as_large_as_the_width_is_no_dimension_of_features() -> None:
    """Fails if the number of images, which is nobody's features, is compared with the norm's channels."""
    net = Net(nn.LayerNorm(H), lambda m, x: m.norm(m.conv(x)).mean(), conv=nn.Conv2d(3, 5, 1))
    assert neighbours_of(net, torch.randn(H, 3, 4, H))["norm"].features_elsewhere == ""


@pytest.mark.parametrize(("n", "found"), [(DEEPEST, ("linear", True)), (DEEPEST + 1, None)])
def test_sums_before_a_norm_are_followed_to_a_depth(n: int, found: tuple[str, bool] | None) -> None:
    """Fails if a chain of as many sums as are followed is cut, or a longer one is not."""
    shape = (N, T, F)
    node = Node("weights", "linear", shape, facts={"geometry": Geometry()})
    for _ in range(n):
        node = Node("add", "add", shape, (node, Node("leaf", "", shape)))
    assert features._made(node, 2, 2, {}) == found


def values(part: str, name: str, *inputs: Node, shape: tuple[int, ...] = (N, T, F), **facts: object) -> Node:
    return Node(part, name, shape, inputs, facts=facts)


LINEAR = values("weights", "linear", geometry=Geometry())


@pytest.mark.parametrize(
    ("node", "dim", "last", "found"),
    [
        (LINEAR, 2, 2, ("linear", True)),
        (LINEAR, 1, 2, ("linear", False)),
        (LINEAR, 1, 1, None),
        (LINEAR, 2, 1, ("linear", True)),
        (LINEAR, None, 2, ("linear", False)),
        (values("weights", "conv", geometry=Geometry(stride=(1,))), 1, 2, ("conv", True)),
        (values("weights", "conv", geometry=Geometry(stride=(1,))), 2, 1, ("conv", False)),
        (values("other", "recurrent"), 2, 2, ("recurrent", True)),
        (values("other", "cudnn_rnn"), 1, 2, ("recurrent", False)),
        (values("other", "embedding"), 1, 2, ("embedding", False)),
        (values("other", "fft"), 2, 2, None),
        (values("site", "norm", site=("stranger", 0)), 2, 2, None),
        (values("activation", "relu", LINEAR), 1, 2, ("linear", False)),
        (values("mark", "dropout", LINEAR), 1, 2, ("linear", False)),
        (values("mark", "cat", LINEAR), 1, 2, None),
        (values("pass", "transpose", LINEAR, shape=(N, F, T), args=(None, 1, 2)), 1, 2, ("linear", True)),
        (values("pass", "alias"), 1, 2, None),
        (values("add", "add", values("leaf", ""), LINEAR), 1, 2, ("linear", False)),
        (values("add", "add", values("input", ""), LINEAR), 1, 2, ("linear", False)),
        (values("add", "add", values("weights", "linear", shape=(N, 1, F), geometry=Geometry())), 1, 2, None),
    ],
)  # fmt: skip
def test_what_made_the_values(
    node: Node, dim: int | None, last: int | None, found: tuple[str, bool] | None
) -> None:
    """Fails if features are looked for in another dimension, or a view that turns them is passed over."""
    assert features._made(node, dim, last, {}) == found
