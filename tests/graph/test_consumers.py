"""What follows a norm, on small nets with one habit each: functional, in place, chosen at run time, several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bnprobe.norms import NormLayer, register_norm
from bnprobe.norms.registry import _registered
from graph.watched import Wired, follows, neighbours_of

C = 6
X = torch.linspace(-2, 2, 3 * C * 5 * 7).reshape(3, C, 5, 7)


class Net(nn.Module):
    """A norm, and what a function makes of its output: after(net, y, x)."""

    def __init__(self, after: Callable[[Net, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.bn, self.other = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.conv, self.linear, self.prelu = nn.Conv2d(C, C, 1), nn.Linear(7, 4), nn.PReLU()
        self.drop, self.hard = nn.Dropout(0.5), nn.Hardswish(inplace=True)
        self.attention = nn.MultiheadAttention(7, 1, batch_first=True)
        self.scale = nn.Parameter(torch.ones(C, 1, 1))
        self.after = after
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.after(self, self.bn(x), x)


def _both(y: Tensor) -> Tensor:
    return torch.relu(y) + 2 * y


def _hidden_in_views(y: Tensor) -> Tensor:
    y = y.permute(0, 2, 3, 1).contiguous().flatten(1, 2).transpose(1, 2)
    return F.relu(F.pad(y.double().float()[..., 1:], (1, 1)))


def _written(y: Tensor) -> Tensor:
    out = torch.empty_like(y)
    torch.tanh(y, out=out)
    return out


def _copied(y: Tensor) -> Tensor:
    out = torch.zeros_like(y)
    out.copy_(y)
    return out.relu_()


def _halves(y: Tensor) -> Tensor:
    y[:, : C // 2].relu_()
    return y.tanh()


def _one_half(y: Tensor, x: Tensor) -> Tensor:
    kept, changed = y[:, : C // 2], y[:, C // 2 :]
    return torch.cat([kept.sigmoid(), changed.tanh()], 1) + x


def _dead_end(y: Tensor) -> Tensor:
    y.mean()
    y.clone().exp_()
    return y.relu()


def _for_a_condition(y: Tensor) -> Tensor:
    if torch.isnan(y).any():
        raise ValueError
    return F.gelu(y) if y.mean() > -100 else F.relu(y)


NETS: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing": (lambda n, y, x: y, "none"),
    "in a dictionary": (lambda n, y, x: {"out": [y]}, "none"),
    "functional": (lambda n, y, x: F.relu(y), "relu"),
    "a method": (lambda n, y, x: y.relu(), "relu"),
    "in place": (lambda n, y, x: F.relu_(y), "relu"),
    "in place, in a module": (lambda n, y, x: n.hard(y), "hardswish"),
    "relu6": (lambda n, y, x: F.relu6(y), "relu6"),
    "hardtanh": (lambda n, y, x: F.hardtanh(y), "hardtanh"),
    "clamp at zero": (lambda n, y, x: y.clamp(min=0), "relu"),
    "clamp_min": (lambda n, y, x: torch.clamp_min(y, 0.0), "relu"),
    "clamp from 0 to 6": (lambda n, y, x: torch.clamp(y, 0, 6), "relu6"),
    "clamp elsewhere": (lambda n, y, x: y.clamp(-1, 2), "hardtanh(-1, 2)"),
    "hardtanh elsewhere": (lambda n, y, x: F.hardtanh(y, -2.0, 2.0), "hardtanh(-2, 2)"),
    "clamp at one": (lambda n, y, x: y.clamp(max=1.0), "clamp"),
    "clamp by a tensor": (lambda n, y, x: torch.clamp(y, max=x), "clamp"),
    "selu": (lambda n, y, x: F.selu(y), "selu"),
    "celu": (lambda n, y, x: F.celu(y, 2.0), "celu(2)"),
    "elu with a number": (lambda n, y, x: F.elu(y, 0.5, inplace=True), "elu(0.5)"),
    "softplus": (lambda n, y, x: F.softplus(y), "softplus"),
    "threshold": (lambda n, y, x: F.threshold(y, 0.0, 0.0), "relu"),
    "silu": (lambda n, y, x: F.silu(y), "silu"),
    "silu in place": (lambda n, y, x: F.silu(y, inplace=True), "silu"),
    "silu, written out": (lambda n, y, x: y * torch.sigmoid(y), "silu"),
    "a gate is no silu": (lambda n, y, x: x * torch.sigmoid(y), "sigmoid"),
    "gelu": (lambda n, y, x: F.gelu(y, approximate="tanh"), "gelu"),
    "elu": (lambda n, y, x: F.elu(y), "elu"),
    "prelu": (lambda n, y, x: n.prelu(y), "prelu"),
    "leaky": (lambda n, y, x: F.leaky_relu(y, 0.1), "leaky_relu(0.1)"),
    "leaky by default": (lambda n, y, x: F.leaky_relu_(y), "leaky_relu"),
    "softmax": (lambda n, y, x: y.softmax(1), "softmax"),
    "conv": (lambda n, y, x: n.conv(y), "conv"),
    "linear": (lambda n, y, x: n.linear(y), "linear"),
    "linear on a view": (lambda n, y, x: n.linear(y.transpose(2, 3).transpose(2, 3)[:, ::2]), "linear"),
    "weights by hand": (lambda n, y, x: y @ n.linear.weight.t(), "linear"),
    "attention module": (lambda n, y, x: n.attention(*[y.flatten(1, 2)] * 3)[0], "linear"),
    "attention": (lambda n, y, x: F.scaled_dot_product_attention(y, x, x), "attention"),
    "a product": (lambda n, y, x: y * x, "mul"),
    "a number": (lambda n, y, x: torch.relu(y * 2), "scale"),
    "a sum": (lambda n, y, x: y + x, "add"),
    "sum, relu": (lambda n, y, x: torch.relu(x + y), "add, relu"),
    "sum and relu in place": (lambda n, y, x: y.add_(x).relu_(), "add, relu"),
    "added into": (lambda n, y, x: x.clone().add_(y).relu_(), "add, relu"),
    "two sums, relu": (lambda n, y, x: torch.relu(x + y + x.abs()), "add, relu"),
    "the sum is used twice": (lambda n, y, x: (s := x + y).relu() + s, "add"),
    "the sum's relu is used twice": (lambda n, y, x: (s := (x + y).relu()) + n.conv(s), "add, relu"),
    "relu used twice": (lambda n, y, x: (s := y.relu()) + n.conv(s), "relu"),
    "two ways": (lambda n, y, x: n.conv(y) + y.relu(), "conv | relu"),
    "relu and raw": (lambda n, y, x: _both(y), "relu | scale"),
    "relu, and handed out": (lambda n, y, x: (y, y.relu()), "none | relu"),
    "two relus": (lambda n, y, x: y.relu() * F.relu(y), "relu"),
    "views": (lambda n, y, x: _hidden_in_views(y), "relu"),
    "dropout at rest": (lambda n, y, x: F.relu(n.drop(y)), "relu"),
    "out=": (lambda n, y, x: _written(y.detach()), "tanh"),
    "copied": (lambda n, y, x: _copied(y), "relu"),
    "detached": (lambda n, y, x: y.detach().relu(), "relu"),
    "data": (lambda n, y, x: y.data.relu(), "relu"),
    "half of it in place": (lambda n, y, x: _halves(y), "relu | tanh"),
    "halves apart": (lambda n, y, x: _one_half(y, x), "sigmoid | tanh"),
    "concatenated": (lambda n, y, x: torch.cat([y, x], 1).relu(), "cat, relu"),
    "pooled": (lambda n, y, x: F.avg_pool2d(y, 2).relu(), "avg_pool"),
    "averaged": (lambda n, y, x: y.mean((2, 3)), "avg_pool"),
    "the largest": (lambda n, y, x: F.max_pool2d(y, 2).relu(), "max_pool, relu"),
    "another norm": (lambda n, y, x: n.other(y), "norm"),
    "a norm by function": (lambda n, y, x: F.layer_norm(y, (7,)), "norm"),
    "dead ends": (lambda n, y, x: _dead_end(y), "relu"),
    "chosen at run time": (lambda n, y, x: _for_a_condition(y), "gelu"),
    "checkpointed": (lambda n, y, x: checkpoint(F.relu, y, use_reentrant=False), "relu"),
    "checkpointed, reentrant": (lambda n, y, x: checkpoint(F.relu, y, use_reentrant=True), "relu"),
    "vmapped": (lambda n, y, x: torch.func.vmap(F.relu)(y), "relu"),
    "upsampled": (lambda n, y, x: F.interpolate(y, scale_factor=2), "upsample"),
    "nothing to see": (lambda n, y, x: torch.from_numpy(y.detach().numpy()).relu(), "unknown"),
}
MODES = {"grad": torch.enable_grad, "no grad": torch.no_grad, "inference": torch.inference_mode}


# without a graph reentrant checkpointing has no work, and torch warns
CASES = [(name, mode) for name in NETS for mode in MODES if "reentrant" not in name or mode == "grad"]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_what_follows(name: str, mode: str):
    """Fails if one spelling of an operation, or one way around it, is taken for another."""
    after, expected = NETS[name]
    x = X.clone().requires_grad_("checkpointed" in name)
    with MODES[mode]():
        assert neighbours_in(Net(after), x)["bn"].follows == expected


def neighbours_in(model: nn.Module, x: Tensor) -> dict[str, Any]:
    """As `neighbours_of`, under whatever mode is on."""
    return neighbours_of(model, x, grad=torch.is_grad_enabled())


def test_a_training_dropout_is_named():
    """Fails if values that dropout zeroes and scales pass for the norm's own."""
    net = Net(lambda n, y, x: F.relu(F.dropout(y, 0.5, training=True)))
    assert follows(net, X, grad=True)["bn"] in ("dropout, relu", "mul")
    with torch.inference_mode():
        assert follows(net, X)["bn"] == "dropout, relu"


def test_a_choice_that_changes_later():
    """The first pass decides; a norm met only in the second is watched then."""

    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.late, self.n = nn.BatchNorm2d(C), nn.BatchNorm2d(C), 0

        def forward(self, x: Tensor) -> Tensor:
            self.n += 1
            x = self.bn(x)
            return F.gelu(self.late(x)) if self.n > 2 else F.relu(x)

    import bnprobe

    net = Choosing().eval()
    with bnprobe.attach(net) as probe, torch.no_grad():
        for _ in range(4):
            net(X)
    found = {record.layer: record.neighbours.follows for record in probe.recording.layers}
    assert found == {"bn": "relu", "late": "gelu"}


def test_what_a_norm_does_inside_is_its_own_affair():
    """Fails if the parts of a composed norm are taken for what follows, or for what fed it."""

    class OwnRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(7)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    net = nn.Sequential(nn.Linear(7, 7), OwnRMSNorm(), nn.Linear(7, 7), OwnRMSNorm(), nn.SiLU())
    found = neighbours_of(net, X)
    assert {name: neighbours.follows for name, neighbours in found.items()} == {"1": "linear", "3": "silu"}
    assert {name: neighbours.producer for name, neighbours in found.items()} == {"1": "0", "3": "2"}
    assert found["3"].sources == ("1",)
    pair = nn.Sequential(OwnRMSNorm(), OwnRMSNorm())
    assert follows(pair, X) == {"0": "norm", "1": "none"}

    class Stores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = pair

        def forward(self, x: Tensor) -> None:
            self.kept = self.pair(x)

    assert follows(Stores(), X) == {"pair.0": "norm", "pair.1": "unknown"}


def test_a_module_with_its_activation_inside():
    """What follows is what takes the module's output; the mismatch shows that its output is not the norm's."""

    class Fused(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(super().forward(x))

    assert follows(nn.Sequential(Fused(C), nn.Conv2d(C, 2, 1)).eval(), X) == {"0": "conv"}


def test_the_model_is_the_norm():
    """Fails if the hooks of one module, called in a row, leave the model's output without its norm."""
    assert follows(nn.BatchNorm2d(C).eval(), X) == {"BatchNorm2d": "none"}


def test_a_norm_called_twice():
    """Each call is a site of its own."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.bn(F.relu(self.bn(x))).tanh()

    assert follows(Twice().eval(), X) == {"bn": "relu", "bn (call 2)": "tanh"}


def test_threads_are_not_seen():
    """Fails if a relu in another thread is missed and something is claimed all the same."""

    def elsewhere(y: Tensor) -> Tensor:
        import threading

        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(y.relu()))
        thread.start()
        thread.join()
        return found[0]

    assert follows(Net(lambda n, y, x: elsewhere(y)), X)["bn"] == "unknown"


def test_the_other_side_of_a_sum():
    """Sites by their path, earlier sums by a norm that enters them, and what acts in between."""

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.BatchNorm2d(C) for _ in range(4))
            self.conv = nn.Conv2d(C, C, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            x = F.relu(self.b(self.conv(x)) + F.max_pool2d(x, 3, 1, 1))
            x = F.relu(self.c(self.conv(x)) + x)
            return self.d(self.conv(x)) + self.conv(x)

    found = neighbours_of(Blocks().eval(), X)
    sides = {
        name: (neighbours.follows, neighbours.skip, neighbours.skip_activation)
        for name, neighbours in found.items()
    }
    assert sides == {
        "a": ("relu", "", "none"),
        "b": ("add, relu", "a", "relu, max_pool"),
        "c": ("add, relu", "sum at b", "relu"),
        "d": ("add", "conv", "none"),
    }


def test_a_registered_norm_may_hold_others():
    """A wrapper around a norm and the norm within: both are sites, and neither follows the other by mistake."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.BatchNorm2d(C)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * 1.0

    register_norm(Wrapped, lambda m: NormLayer("wrapped", "batch", C, 1e-5, weight=m.inner.weight))
    try:
        found = follows(nn.Sequential(Wrapped(), nn.ReLU()).eval(), X)
    finally:
        del _registered[Wrapped]
    assert found == {"0.inner": "scale", "0": "relu"}


SIDES: dict[str, tuple[Callable[[Any, Tensor], Any], tuple[str, str]]] = {
    "the input": (lambda m, x: m.b(m.conv(x)) + x, ("input", "none")),
    "a norm": (lambda m, x: m.b(m.conv(x)) + m.a(x), ("a", "none")),
    "views and an activation": (lambda m, x: m.b(m.conv(x)) + m.a(x).relu().reshape(x.shape), ("a", "relu")),
    "acts in the order in which they act": (lambda m, x: m.b(m.conv(x)) + m.a(x).tanh().relu(), ("a", "tanh, relu")),
    "a scale that is learned": (lambda m, x: m.b(m.conv(x)) + m.a(x) * m.scale, ("a", "mul")),
    "a number": (lambda m, x: m.b(m.conv(x)) + 2 * m.a(x), ("a", "scale")),
    "a gate": (lambda m, x: m.b(m.conv(x)) + m.a(x) * x.sigmoid(), ("mul", "none")),
    "upsampled": (lambda m, x: m.b(m.conv(x)) + F.interpolate(m.a(x), size=x.shape[2:]), ("a", "upsample")),
    "a convolution": (lambda m, x: m.b(m.conv(x)) + m.other(x), ("other", "none")),
    "another function": (lambda m, x: m.b(m.conv(x)) + x.exp(), ("input", "exp")),
    "an earlier sum": (lambda m, x: m.b(m.conv(h := m.a(m.other(x)) + x)) + h, ("sum at a", "none")),
    "a sum without a norm": (lambda m, x: m.b(m.conv(h := m.other(x) + x)) + h, ("sum", "none")),
    "two terms": (lambda m, x: m.b(m.conv(x)) + m.a(x) + x, ("a, input", "none")),
    "none": (lambda m, x: m.b(m.conv(x)).relu(), ("", "none")),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDES)
def test_the_other_side_by_what_made_it(name: str) -> None:
    """Fails if the walk stops at what hands values on, goes past what makes others, or names acts in another order."""
    way, expected = SIDES[name]
    layers: dict[str, nn.Module] = {"conv": nn.Conv2d(C, C, 1), "other": nn.Conv2d(C, C, 1)}
    net = Wired(way, a=nn.BatchNorm2d(C), b=nn.BatchNorm2d(C), **layers)
    net.scale = nn.Parameter(torch.ones(C, 1, 1))
    found = neighbours_of(net.eval(), X)["b"]
    assert (found.skip, found.skip_activation) == expected
