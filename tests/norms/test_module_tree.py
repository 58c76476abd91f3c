"""The one walk over a model: what torch's own walks find, also where a class hides their names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import CASES, Case
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bnprobe.norms import ModuleTree
from bnprobe.norms.module_tree import children_of


class Tied(nn.Module):
    """One module at two places, one parameter and one buffer in two modules, and a place with nothing in it."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.first, self.second, self.nothing = shared, nn.Sequential(nn.ReLU(), shared), None
        self.register_module("gone", None)
        self.third = nn.BatchNorm1d(2)
        self.third.weight = shared[1].weight
        self.third.running_mean = shared[1].running_mean
        self.again = self.third
        self.register_parameter("missing", None)
        self.normed = weight_norm(nn.Linear(2, 3))


def _scripted() -> nn.Module:
    return torch.jit.trace(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval(), torch.ones(1, 2))


MODELS = {
    **{case.name: case.model for case in CASES},
    "tied": Tied,
    "lone": lambda: nn.ReLU(),
    "scripted": _scripted,
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("name", MODELS)
def test_the_walk_finds_what_torch_finds(name: str):
    """Fails if a module, parameter or buffer is missed, found twice, out of order, or under another path."""
    model = MODELS[name]()
    tree = ModuleTree.of(model)
    for ours, torchs in (
        (tree.modules, model.named_modules()),
        (tree.parameters(), model.named_parameters()),
        (tree.buffers(), model.named_buffers()),
    ):
        expected = dict(torchs)
        assert list(ours) == list(expected)
        assert all(one is expected[path] for path, one in ours.items())
    assert tree.model is model
    for module in tree.modules.values():
        assert tree.children(module) == children_of(module) == tuple(module.named_children())
        assert {id(inner) for inner in tree.inside(module)} == {id(inner) for inner in module.modules()}
        assert len(list(tree.inside(module))) == len(list(module.modules()))


HIDDEN = (
    "modules",
    "named_modules",
    "children",
    "named_children",
    "parameters",
    "named_parameters",
    "buffers",
)


def hide(module: nn.Module) -> None:
    """Put lists, as ESPNet does, where a class has its methods."""
    for name in (*HIDDEN, "named_buffers"):
        setattr(module, name, [])


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_hidden_names_change_nothing(case: Case):
    """Fails if the walk asks a module, or one inside it, for a method that its class may hide."""
    outer: Any = nn.Sequential(case.model())
    expected = ModuleTree.of(outer)
    parameters, buffers = expected.parameters(), expected.buffers()
    for module in list(outer.modules()):
        hide(module)
    tree = ModuleTree.of(outer)
    assert list(tree.modules.items()) == list(expected.modules.items())
    assert list(tree.parameters()) == list(parameters)
    assert list(tree.buffers()) == list(buffers)
    assert len(list(tree.inside(outer))) == len(expected.modules)
