"""Means of networks: of unrelated ones, which are found, and of related ones, which are healthy."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import bnprobe

State = dict[str, Tensor]
CENTRE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
N_STEPS, EARLY, LATE = 90, 20, 80


def conv_net() -> nn.Sequential:
    widths = (3, 32, 32, 32, 32)
    layers = [
        (nn.Conv2d(n, m, 3, padding=1, bias=False), nn.BatchNorm2d(m), nn.ReLU()) for n, m in pairwise(widths)
    ]
    return nn.Sequential(
        *(module for layer in layers for module in layer), nn.Flatten(), nn.Linear(32 * 64, 4)
    )


def rms_net() -> nn.Sequential:
    layers = [(nn.Linear(192 if i == 0 else 48, 48, bias=False), nn.RMSNorm(48), nn.GELU()) for i in range(4)]
    named = {
        f"{name}{i}": one
        for i, of in enumerate(layers)
        for name, one in zip(("up", "norm", "act"), of, strict=True)
    }
    return nn.Sequential(OrderedDict([("flat", nn.Flatten()), *named.items(), ("head", nn.Linear(48, 4))]))


def trained(make: Callable[[], nn.Module], seed: int, begin: State | None = None) -> dict[int, State]:
    """The states at the steps EARLY, LATE and N_STEPS."""
    torch.manual_seed(seed)
    model = make()
    if begin is not None:
        model.load_state_dict(begin)
    optimizer, states = torch.optim.Adam(model.parameters(), 5e-3), {}
    for step in range(1, N_STEPS + 1):
        y = torch.randint(0, 4, (32,))
        loss = nn.functional.cross_entropy(model(torch.randn(32, 3, 8, 8) + CENTRE[y]), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step in (EARLY, LATE, N_STEPS):
            states[step] = copy.deepcopy(model.state_dict())
    return states


def mixed(a: State, b: State, share: float = 0.5) -> State:
    return {k: share * v + (1 - share) * b[k] if v.is_floating_point() else v for k, v in a.items()}


@pytest.fixture(scope="module", params=[conv_net, rms_net])
def nets(request: pytest.FixtureRequest) -> dict[str, State]:
    """A network at three steps, one that was trained apart from it, and two that were trained on from it."""
    a, other = trained(request.param, 1), trained(request.param, 2)[N_STEPS]
    tuned = [trained(request.param, seed, a[N_STEPS])[EARLY] for seed in (3, 4)]
    return {
        "early": a[EARLY],
        "late": a[LATE],
        "a": a[N_STEPS],
        "other": other,
        "one": tuned[0],
        "two": tuned[1],
    }


def found(a: State, b: State) -> list[str]:
    findings = bnprobe.compare(a, b).findings
    return [row.says for row in findings.itertuples() if row.rule == "mean-of-unrelated"]


@pytest.mark.parametrize("share", [0.5, 0.65])
def test_means_of_unrelated_networks(nets: dict[str, State], share: float) -> None:
    """Fails if a mean passes for a state of its parent, or the order of the sides decides."""
    mean = mixed(nets["a"], nets["other"], share)
    (there,), (back,) = found(nets["a"], mean), found(mean, nets["a"])
    assert there.startswith("B is a mean of A")
    assert back.startswith("A is a mean of B")
    assert abs(float(there.split("about ")[1].split("%")[0]) / 100 - share) < 0.12


def test_related_networks(nets: dict[str, State]) -> None:
    """Fails if EMA, a soup, two states of one training or two networks are called such a mean."""
    a = nets["a"]
    for b in (
        mixed(a, nets["late"]),
        mixed(a, nets["early"]),
        mixed(nets["one"], nets["two"]),
        *(nets[name] for name in ("early", "late", "other", "one")),
        {name: tensor * 0.7 if tensor.dim() > 1 else tensor for name, tensor in a.items()},
    ):
        assert found(a, b) == []
        assert found(b, a) == []


def test_nothing_contradicts_it(nets: dict[str, State]) -> None:
    """Fails if a note says that nothing is to be done if B was trained on from A."""
    findings = bnprobe.compare(nets["a"], mixed(nets["a"], nets["other"])).findings
    assert "tensors-differ" not in set(findings["rule"])
