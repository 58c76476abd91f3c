"""Which blocks run before a change, what part of a pass a variant takes, and what kind of model can be cut at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bnprobe.experiments.held_vectors import storage
from bnprobe.experiments.prefix import Prefix, _blocks, _can_replay, _holders
from bnprobe.norms import ModuleTree


def pairs(n: int, each: int = 2) -> nn.Sequential:
    """So many parts of some norms each, with a linear layer between the first two."""
    parts: list[nn.Module] = [nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(each))) for _ in range(n)]
    return nn.Sequential(parts[0], nn.Linear(2, 2), *parts[1:])


def blocks_of(model: nn.Module) -> list[str]:
    tree = ModuleTree.of(model)
    norms = {id(m) for m in model.modules() if isinstance(m, nn.BatchNorm1d)}
    names = {id(m): name for name, m in model.named_modules()}
    return [names[id(block)] for block in _blocks(tree, norms)]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (pairs(8), ["0", "1", *(str(i) for i in range(2, 9))]),  # two of sixteen norms are an eighth
        (pairs(2), ["0.0", "0.1", "1", "2.0", "2.1"]),
        (pairs(2, each=1), ["0", "1", "2"]),
        (nn.Sequential(nn.Linear(2, 2)), ["0"]),
        (nn.BatchNorm1d(2), [""]),
    ],
)
def test_blocks_hold_an_eighth_of_the_norms_at_most(model: nn.Module, expected: list[str]) -> None:
    """Fails if larger modules stay whole, smaller ones are taken apart, or modules without norms are left out."""
    assert blocks_of(model) == expected


def test_what_is_held_outside_of_blocks_is_in_none() -> None:
    """Fails if a change of a parameter of the model itself is looked for in a block that shares it."""
    model = pairs(2, each=1)
    shared = model[0][0].weight
    model.register_parameter("own", nn.Parameter(torch.ones(2)))
    blocks = [model[0], model[2]]
    found = _holders(ModuleTree.of(model), blocks)
    assert found[storage(shared)] == {id(model[0])}
    assert storage(model.own) not in found
    assert storage(model[1].weight) not in found
    model[1].weight = nn.Parameter(shared.data)
    assert storage(shared) not in _holders(ModuleTree.of(model), blocks)


def prefix(n_calls: int = 4, n_kept: int = 4, holders: Any = None) -> tuple[Prefix, list[nn.Module]]:
    """Of a pass whose blocks took 1, 2, 4 and 8 seconds, and 5 the rest."""
    found = object.__new__(Prefix)
    modules: list[nn.Module] = [nn.Identity() for _ in range(n_calls)]
    found._calls = [(module, None) for module in modules]
    found._times = [100.0, 101.0, 103.0, 107.0, 115.0, 120.0]
    found._n_kept = n_kept
    found._holders = holders or {}
    found._around = {}
    return found, modules


def variant(*tensors: torch.Tensor, modules: tuple[nn.Module, ...] = ()) -> Any:
    members = [SimpleNamespace(module=module) for module in modules]
    return SimpleNamespace(changes=[(t, None, None) for t in tensors], members=members, outputs=bool(modules))


@pytest.mark.parametrize(
    ("at", "n_kept", "start", "share"),
    [
        (0, 4, 0, 1.0),
        (1, 4, 1, 0.95),
        (2, 4, 2, 0.85),
        (3, 4, 3, 0.65),
        (3, 3, 3, 0.65),
        (3, 2, 0, 1.0),
        (1, 0, 0, 1.0),
    ],
)
def test_a_variant_starts_where_its_first_block_does(at: int, n_kept: int, start: int, share: float) -> None:
    """Fails if a block too many is left out, outputs that are not kept are given, or a share is of another time."""
    tensor = torch.zeros(2)
    found, modules = prefix(n_kept=n_kept)
    found._holders = {storage(tensor): {id(modules[at])}}
    assert found.start(variant(tensor)) == start
    assert found.share(variant(tensor)) == pytest.approx(share)


def test_all_that_a_variant_changes_must_be_in_blocks() -> None:
    """Fails if a tensor that nobody holds is overlooked, or the last of several blocks decides."""
    one, other, nowhere = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    found, modules = prefix()
    found._holders = {storage(one): {id(modules[3])}, storage(other): {id(modules[2]), id(modules[1])}}
    assert found.start(variant(one, other)) == 1
    assert found.start(variant(one, nowhere)) == 0
    assert found.start(variant(one)) == 3
    norm = nn.Identity()
    found._around = {id(norm): {id(modules[2])}}
    assert found.start(variant(one, modules=(norm,))) == 2
    assert found.start(variant(one, modules=(nn.Identity(),))) == 0


def test_a_pass_that_took_no_time_is_a_whole_one() -> None:
    """Fails if nothing is divided by nothing."""
    found, _ = prefix()
    found._times = [7.0, 7.0]
    assert found.share(variant()) == 1.0


def compiled() -> nn.Module:
    model = pairs(2)
    model[0]._compiled_call_impl = print
    return model


def hooked(kind: str) -> nn.Module:
    model = pairs(2)
    getattr(model[2][1], f"register_forward_{kind}")(lambda *values: None)
    return model


def wrapped() -> nn.Module:
    model = pairs(2)
    model[0].add_module("_orig_mod", nn.Identity())
    return model


@pytest.mark.parametrize(
    ("model", "can"),
    [
        (pairs(2), True),
        (hooked("hook"), False),
        (hooked("pre_hook"), False),
        (compiled(), False),
        (wrapped(), False),
    ],
    ids=["plain", "hook", "pre-hook", "compiled", "wrapped"],
)
def test_what_runs_more_than_its_forward_is_not_cut(model: nn.Module, can: bool) -> None:
    """Fails if what a hook does, or compiled code, is left out with the block."""
    assert _can_replay(ModuleTree.of(model)) is can


@pytest.mark.parametrize("kind", ["hook", "pre_hook"])
def test_hooks_of_all_modules_count(kind: str) -> None:
    """Fails if a hook that torch calls for every module is overlooked."""
    register = getattr(nn.modules.module, f"register_module_forward_{kind}")
    handle = register(lambda *values: None)
    try:
        assert not _can_replay(ModuleTree.of(pairs(2)))
    finally:
        handle.remove()
    assert _can_replay(ModuleTree.of(pairs(2)))
