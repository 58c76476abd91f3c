"""Attaching again to a model repeats no arithmetic on its weights, unless something that it is made from has changed."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor, nn

from bnprobe.graph import neighbours, remembered, residual, trace
from graph.watched import neighbours_of, random_vectors

X = torch.linspace(-1, 1, 2 * 3 * 9 * 9).reshape(2, 3, 9, 9)


class Block(nn.Module):
    """A convolution after a norm, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.first(x)))
        return x + self.bn2(self.second(x))


def block() -> Block:
    return random_vectors(Block())


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected["bn2"].implied is not None
    assert expected["bn2"].skip_var is not None
    for site, one in expected.items():
        np.testing.assert_equal(asdict(found[site]), asdict(one))


def test_nothing_is_worked_out_twice(monkeypatch: pytest.MonkeyPatch):
    """Fails if a second probe of an unchanged model does the arithmetic on its weights again, or finds anything else."""
    model = block()
    first = neighbours_of(model, X)

    def again(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(neighbours, "_reduced", again)
    monkeypatch.setattr(residual.Skips, "_both", again)
    assert_same(neighbours_of(model, X), first)


def with_more_eps(model: Block) -> None:
    model.bn2.eps *= 2


CHANGES: dict[str, Callable[[Block], object]] = {
    "weights, past the version counter": lambda model: model.second.weight.data.mul_(2),
    "bias": lambda model: model.second.bias.data.add_(1),
    "gamma of the norm": lambda model: model.bn2.weight.data.mul_(2),
    "running mean": lambda model: model.bn2.running_mean.add_(1),
    "running variance": lambda model: model.bn2.running_var.mul_(2),
    "eps": with_more_eps,
    "beta of the norm before": lambda model: model.bn1.bias.data.add_(1),
    "gamma of the norm before": lambda model: model.bn1.weight.data.mul_(-3),
    "size of the input": lambda model: None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_worked_out_again(change: str):
    """Fails if anything that the numbers are made from may change unseen; the other side is a copy, which knows nothing."""
    model = block()
    neighbours_of(model, X)
    CHANGES[change](model)
    x = X[..., 2:] if change == "size of the input" else X
    assert_same(neighbours_of(model, x), neighbours_of(copy.deepcopy(model), x))


def test_what_is_remembered_goes_with_the_model():
    """Fails if the numbers of models that are gone stay in memory."""
    model = block()
    neighbours_of(model, X)
    known = id(model)
    assert known in remembered._OF_MODELS
    del model
    gc.collect()
    assert known not in remembered._OF_MODELS


def test_one_slot_per_question():
    """Fails if a model that is trained, and probed every epoch, leaves more behind each time."""
    model = block()
    sizes = []
    for _ in range(3):
        neighbours_of(model, X)
        model.second.weight.data.mul_(2)
        sizes.append(len(remembered.Remembered.of(model)._slots))
    assert sizes[0] == sizes[-1] > 0


def test_the_quantiles_are_those_of_a_gaussian():
    """Fails if a digit of the table is wrong."""
    n = residual.N_POINTS
    assert n == 24
    np.testing.assert_allclose(residual.QUANTILES, scipy.special.ndtri((np.arange(n) + 0.5) / n), rtol=1e-14)


def test_operations_of_the_probe_pass_no_mode(monkeypatch: pytest.MonkeyPatch):
    """Fails if the first pass hands each of the probe's own operations to the watching mode, slower than they are."""
    seen: list[str] = []
    watched = trace._Watch.__torch_dispatch__

    def counted(self: Any, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen.append(str(func))
        return watched(self, func, types, args, kwargs)

    monkeypatch.setattr(trace._Watch, "__torch_dispatch__", counted)
    neighbours_of(block(), X)
    assert 0 < len(seen) < 20, "two convolutions, two norms, ReLU, a sum, and what they are made of"
