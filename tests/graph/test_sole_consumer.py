"""A bias before a batch norm is called redundant only where taking it out leaves the model's output as it is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bnprobe
from bnprobe.rules.remedies import in_words, is_function

C = 4


class Wired(nn.Module):
    """Convolutions, a linear layer and two norms with learned-looking vectors, put together by `way`."""

    def __init__(self, way: Callable[[Wired, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.way = way
        self.c, self.d, self.e = (nn.Conv2d(C, C, 3, padding=1) for _ in range(3))
        self.bn, self.bn2 = nn.BatchNorm2d(C), nn.BatchNorm2d(C)
        self.line, self.wide = nn.Linear(C, C), nn.Conv2d(C, 2 * C, 3, padding=1)
        for norm in (self.bn, self.bn2):
            for vector in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(vector, 0.5, 1.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def functional(m: Wired, x: Tensor) -> Tensor:
    mean, var = m.bn.running_mean, m.bn.running_var
    return F.relu(F.batch_norm(m.c(x), mean, var, m.bn.weight, m.bn.bias))


def also_added(m: Wired, x: Tensor) -> Tensor:
    h = m.c(x)
    return F.relu(m.bn(h)) + h


def also_returned(m: Wired, x: Tensor) -> tuple[Tensor, Tensor]:
    h = m.c(x)
    return m.bn(h), h


def also_looked_at(m: Wired, x: Tensor) -> Tensor:
    h = m.c(x)
    return m.bn(h) * (2 if h[0, 0, 0, 0].item() > 0 else 3)


def halves(m: Wired, x: Tensor) -> Tensor:
    top, bottom = m.c(x).split(3, dim=2)
    return torch.cat([m.bn(top), m.bn2(bottom)], 2)


def two_norms(m: Wired, x: Tensor) -> Tensor:
    h = m.c(x)
    return F.relu(m.bn(h)) + m.bn2(h)


def of_no_norm(h: Tensor) -> Tensor:
    h[:, :, 0] = 0
    return h


NOT_ALONE: dict[str, Callable[[Wired, Tensor], Tensor]] = {
    "its output is added, too": also_added,
    "its output leaves the model, too": also_returned,  # type: ignore[dict-item]
    "its output decides, too": also_looked_at,
    "zeros around it": lambda m, x: m.bn(F.pad(m.c(x), (1, 1, 1, 1))),
    "zeros in it": lambda m, x: m.bn(of_no_norm(m.c(x))),
    "called again without the norm": lambda m, x: m.c(F.relu(m.bn(m.c(x)))),
    "a norm of two layers": lambda m, x: m.bn(m.d(F.relu(m.bn(m.c(x))))),
    "two norms on one output": two_norms,
    "a layer for two levels with a norm each": lambda m, x: m.bn(m.c(x)) + m.bn2(m.c(2 * x)),
    "halves to two norms": halves,
    "the bias read elsewhere": lambda m, x: m.bn(m.c(x)) + m.c.bias.sum(),  # type: ignore[union-attr]
    "the bias of another layer": lambda m, x: m.bn(F.conv2d(x, m.c.weight, m.d.bias, padding=1)),
    "the running mean read elsewhere": lambda m, x: (
        m.bn(m.c(x)) + F.batch_norm(x, m.bn.running_mean, m.bn.running_var)
    ),
    "dropout between": lambda m, x: m.bn(F.dropout(m.c(x), 0.5, True)),
    "half of its channels": lambda m, x: m.bn(m.wide(x)[:, :C]),
    "its channels two by two": lambda m, x: m.bn(m.wide(x).reshape(len(x), C, -1, x.shape[-1])),
    "an activation between": lambda m, x: m.bn(F.relu(m.c(x))),
}
ALONE: dict[str, Callable[[Wired, Tensor], Tensor]] = {
    "plain": lambda m, x: F.relu(m.bn(m.c(x))),
    "with a skip connection": lambda m, x: F.relu(m.bn(m.c(x))) + x,
    "both called twice": lambda m, x: m.bn(m.c(F.relu(m.bn(m.c(x))))),
    "views between": lambda m, x: m.bn(m.c(x).flatten(2)[..., None]),
    "mirrored around it": lambda m, x: m.bn(F.pad(m.c(x), (1, 1, 1, 1), mode="reflect")),
    "positions left out": lambda m, x: m.bn(m.c(x)[:, :, 1:]),
    "linear": lambda m, x: m.bn(m.line(x.mean((2, 3)))[..., None, None]),
}


def findings_of(model: nn.Module, x: Tensor, grad: bool = False) -> pd.Series:
    """What is advised about biases."""
    with bnprobe.attach(model, gradients=grad) as probe, torch.set_grad_enabled(grad):
        model(x)
    findings = bnprobe.report(probe).findings
    assert not findings["do"].str.contains("submodule.*_norm:").any()
    return findings.loc[findings["rule"] == "bias-redundant", "do"]


def follow(advice: str, model: nn.Module) -> None:
    names = {"model": model, "torch": torch}
    for code in re.findall(r"`([^`]+)`", advice):
        exec(code, names)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("way", NOT_ALONE)
def test_a_bias_that_has_an_effect(way: str, grad: bool):
    """Fails if a bias is called redundant whose loss the output would show."""
    assert findings_of(Wired(NOT_ALONE[way]).eval(), torch.randn(2, C, 6, 6), grad).empty


@pytest.mark.parametrize(("ways", "alone"), [(NOT_ALONE, 0), (ALONE, 1)], ids=["not alone", "alone"])
def test_the_table_says_whether_a_layer_feeds_one_norm_alone(
    ways: dict[str, Callable[[Wired, Tensor], Tensor]], alone: int
):
    """Fails if the column says so of a layer of which the norm sees some channels, or the sum of two uses."""
    for name, way in ways.items():
        layers = bnprobe.report(bnprobe.record(Wired(way).eval(), [torch.randn(2, C, 6, 6)])).layers
        assert layers["feeds_alone"].min() == alone, name


def test_vectors_that_two_modules_hold():
    """Fails if a bias or a running mean is changed that a second module of the model has, too."""
    x, model = torch.randn(2, C, 6, 6), Wired(lambda m, x: m.bn(m.d(F.relu(m.bn(m.c(x)))))).eval()
    model.d.weight, model.d.bias = model.c.weight, model.c.bias
    assert findings_of(model, x).empty
    model = Wired(lambda m, x: m.bn2(F.relu(m.bn(m.c(x))))).eval()
    model.bn2.running_mean = model.bn.running_mean
    assert findings_of(model, x).empty


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("way", ALONE)
def test_a_bias_that_has_none(way: str, grad: bool):
    """Fails if it is not reported, or if what is advised changes the output."""
    model, x = Wired(ALONE[way]).eval(), torch.randn(2, C, 6, 6)
    (advice,) = findings_of(model, x, grad)
    before = model(x)
    follow(advice, model)
    assert (model.c.bias is None) != (model.line.bias is None)
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_two_layers_with_a_norm_each():
    """Fails if the advice names a pair wrongly, or stops after the first."""
    model = Wired(lambda m, x: m.bn2(m.d(F.relu(m.bn(m.c(x)))))).eval()
    x = torch.randn(2, C, 6, 6)
    (advice,) = findings_of(model, x)
    before = model(x)
    follow(advice, model)
    assert model.c.bias is None
    assert model.d.bias is None
    torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_a_functional_norm_is_advised_in_words():
    """Fails if a module is asked for that a function's call is not."""
    (advice,) = findings_of(Wired(functional).eval(), torch.randn(2, C, 6, 6))
    assert "`" not in advice
    assert "running mean that the function is given" in advice


def test_an_untrained_functional_norm_is_advised_in_words():
    """Fails if a rule about vectors asks for such a module."""

    def way(m: Wired, x: Tensor) -> Tensor:
        y = F.batch_norm(m.c(x), m.bn.running_mean, m.bn.running_var, torch.ones(C), torch.zeros(C))
        return m.bn2(m.d(F.relu(y)))

    model = Wired(way).eval()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, C, 6, 6))
    findings = bnprobe.report(probe).findings
    functional = findings[findings["layer"].map(is_function)]
    assert "affine-untrained" in set(functional["rule"])
    (biases,) = functional.loc[functional["rule"] == "bias-redundant", "do"]
    assert "[('d', 'bn2')]" in biases
    assert "running mean that the function is given" in biases
    assert not findings["do"].str.contains(r"submodule\(.*_norm:").any()


def test_code_on_functions_becomes_words():
    """Fails if a span of code about a function's call is left, or code about a module is taken away."""
    by_hand = "do so by hand in the code that calls the function"
    code = 'Do: `n = model.get_submodule("a.layer_norm:5[96]"); n.x()`, `h.remove()`. Or `model = build()`.'
    assert in_words(code) == f"Do: {by_hand}. Or `model = build()`."
    kept = 'Do: `n = model.get_submodule("a.layer_norm.5")`, `h.remove()`.'
    assert in_words(kept) == kept
    assert in_words('once, model.get_submodule("rms_norm:3").eval() else') == f"once, {by_hand} else"
    assert is_function("batch_norm:51")
    assert not is_function("batch_norm.51")
