"""Who reads a norm's channels: every reader of small nets with one habit each, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bnprobe.graph.removable import InTheWay, Reader, readers_of
from graph.watched import Wired, graph_of

C = 4
X = torch.linspace(-2, 2, 2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
Way = Callable[[Any, Tensor], Any]


def net(way: Way, **more: nn.Module) -> nn.Module:
    """A convolution and a norm, and what `way` makes of the norm's output."""
    layers = {"first": nn.Conv2d(3, C, 3, padding=1), "bn": nn.BatchNorm2d(C), "next": nn.Conv2d(C, 2, 3)}
    layers |= {"wide": nn.Linear(C * 36, 2), "fc": nn.Linear(C, 2), **more}
    return Wired(lambda m, x: way(m, m.bn(m.first(x))), **layers)


FOUND: dict[str, tuple[Way, tuple[Reader, ...]]] = {
    "a convolution": (lambda m, y: m.next(y.relu()), (Reader("next"),)),
    "a relu in place": (lambda m, y: m.next(F.relu_(y)), (Reader("next"),)),
    "relu6": (lambda m, y: m.next(F.relu6(y)), (Reader("next"),)),
    "dropout at rest": (lambda m, y: m.next(F.dropout(y.relu(), 0.5, training=False)), (Reader("next"),)),
    "a copy": (lambda m, y: m.next(y.clone().relu().detach()), (Reader("next"),)),
    "pooled": (lambda m, y: m.next(F.max_pool2d(y.relu(), 2)), (Reader("next"),)),
    "averaged": (lambda m, y: m.next(F.avg_pool2d(y.relu(), 2)), (Reader("next"),)),
    "averaged away": (lambda m, y: m.fc(F.adaptive_avg_pool2d(y.relu(), 1).flatten(1)), (Reader("fc"),)),
    "a mean over positions": (lambda m, y: m.fc(y.relu().mean((2, 3))), (Reader("fc"),)),
    "from behind": (lambda m, y: m.fc(y.relu().mean((-1, -2))), (Reader("fc"),)),
    "the largest": (lambda m, y: m.fc(y.relu().amax((2, 3))), (Reader("fc"),)),
    "flattened": (lambda m, y: m.wide(y.relu().flatten(1)), (Reader("wide", 36),)),
    "flattened before": (lambda m, y: m.wide(y.flatten(1).relu()), (Reader("wide", 36),)),
    "two readers": (lambda m, y: (m.next(y.relu()), m.wide(y.relu().flatten(1))), (Reader("next"), Reader("wide", 36))),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_readers_of_channels_that_may_go(name: str) -> None:
    """Fails if a reader is missed, or the columns of a flattened channel are not its positions."""
    way, expected = FOUND[name]
    with graph_of(net(way), X) as look:
        assert set(readers_of("bn", look.graph)) == set(expected)


TURNED = nn.ConvTranspose2d(C, 2, 3)
IN_THE_WAY: dict[str, tuple[Way, str, dict[str, nn.Module]]] = {
    "no relu": (lambda m, y: m.next(y), "enters a layer with weights before a ReLU", {}),
    "another activation": (lambda m, y: m.next(y.tanh()), "its output enters tanh before a ReLU", {}),
    "a sum": (lambda m, y: m.next(y.relu() + 1.5 * y.detach()), "its output enters", {}),
    "a sum after": (lambda m, y: m.next(y.relu() + X.mean()), "its output enters a sum", {}),
    "a gate": (lambda m, y: m.next(y.relu() * torch.ones(2, C, 6, 6)), "its output enters a product", {}),
    "beside others": (
        lambda m, y: m.next(torch.cat([y.relu(), y.relu()], 1)[:, :C]),
        "enters a concatenation",
        {},
    ),
    "the output": (lambda m, y: y.relu(), "its output is an output of the model", {}),
    "the output, too": (lambda m, y: (m.next(y.relu()), y), "its output is an output of the model", {}),
    "nothing": (lambda m, y: (y.relu(), m.fc(torch.ones(1, C)))[1], "nothing reads its output", {}),
    "grouped": (
        lambda m, y: m.g(y.relu()),
        "g, which reads it, is grouped",
        {"g": nn.Conv2d(C, C, 1, groups=2)},
    ),
    "transposed": (lambda m, y: m.t(y.relu()), "t, which reads it, is grouped, transposed", {"t": TURNED}),
    "tokens": (lambda m, y: m.q(y.relu()), "its output enters view", {"q": nn.Linear(6, 2)}),
    "channels moved": (lambda m, y: m.next(y.relu().flip(1)), "its output enters flip", {}),
    "a mean over channels": (lambda m, y: m.q(y.relu().mean(1)), "its output enters", {"q": nn.Linear(6, 2)}),
    "a mean over all but one": (
        lambda m, y: m.q(y.relu().mean((1, 2))),
        "its output enters",
        {"q": nn.Linear(6, 2)},
    ),
    "a mean over everything": (
        lambda m, y: m.fc(y.relu().mean() * torch.ones(2, C)),
        "its output enters",
        {},
    ),
    "flattened, then pooled": (
        lambda m, y: m.q(F.max_pool1d(y.relu().flatten(1), 2)),
        "its output enters",
        {"q": nn.Linear(72, 2)},
    ),
    "images joined": (lambda m, y: m.fc(y.relu().reshape(-1, C)), "its output enters", {}),
    "also read elsewhere": (
        lambda m, y: (m.next(y.relu()), m.next(torch.ones(1, C, 6, 6))),
        "next also reads other values",
        {},
    ),
    "a weight that is computed": (
        lambda m, y: F.conv2d(y.relu(), 2 * m.next.weight),
        "the weight of next is computed in each pass",
        {},
    ),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_stands_in_the_way(name: str) -> None:
    """Fails if a channel would be taken out whose zeros another operation turns into something else."""
    way, why, more = IN_THE_WAY[name]
    with graph_of(net(way, **more), X) as look, pytest.raises(InTheWay, match=why):
        readers_of("bn", look.graph)


def test_a_norm_that_is_called_twice_or_never() -> None:
    """Fails if one of two calls is judged for both, or a norm that nothing reached has readers."""
    twice = Wired(lambda m, x: m.conv(m.bn(m.bn(x)).relu()), bn=nn.BatchNorm2d(3), conv=nn.Conv2d(3, 2, 1))
    with graph_of(twice, X) as look:
        with pytest.raises(InTheWay, match="it is called several times in a pass"):
            readers_of("bn", look.graph)
        with pytest.raises(InTheWay, match="no values reached it"):
            readers_of("other", look.graph)
