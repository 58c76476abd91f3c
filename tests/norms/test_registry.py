"""Which modules are norms, and how a user's own is taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import oracles
from support.models import BY_NAME, CASES, EVAL_ONLY, C, Case, OwnBatchNorm, StrangeNorm
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.norms import NormLayer, describe, is_norm, looks_like_norm, register_norm


@pytest.mark.parametrize("case", CASES + EVAL_ONLY, ids=lambda case: case.name)
def test_norms_of_the_menagerie_are_found(case: Case):
    """Fails if a norm is missed or something else is taken for one."""
    found = [name for name, m in case.model().named_modules() if is_norm(m)]
    assert [name or "BatchNorm2d" for name in found] == [*case.norms, *case.never_called]


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.Dropout(),
        nn.LocalResponseNorm(2),
        nn.Sequential(nn.BatchNorm2d(3)),
        StrangeNorm(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_what_is_no_norm(module: nn.Module):
    """Fails if a container, an activation or a formula nobody knows is hooked as a norm."""
    assert not is_norm(module)
    assert describe(module) == ()


def test_what_only_looks_like_a_norm():
    """Fails if wrappers and weight parametrizations are named to the user, or strangers are not."""

    class NormWrapper(nn.Sequential):
        pass

    assert looks_like_norm(StrangeNorm())
    assert not looks_like_norm(NormWrapper(nn.BatchNorm2d(C)))
    assert not looks_like_norm(nn.BatchNorm2d(C))
    assert not looks_like_norm(nn.Linear(2, 2))
    for wrapped in (weight_norm(nn.Linear(2, 2)), spectral_norm(nn.Linear(2, 2))):
        assert not any(looks_like_norm(m) for m in wrapped.modules())


def test_lazy_norms_are_norms_before_their_first_pass():
    """Fails if an uninitialized parameter is asked for its size."""
    assert is_norm(nn.LazyBatchNorm2d())
    assert is_norm(nn.LazyInstanceNorm1d())


class Halved(nn.Module):
    """Divides by twice the batch's standard deviation: a formula of its own, told as gamma / 2."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.rand(n, dtype=torch.float64) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean((0, 2, 3), keepdim=True)
        return x / x.square().mean((0, 2, 3), keepdim=True).add(0.1).sqrt() / 2 * self.g[:, None, None]


class HalvedChild(Halved):
    pass


def describe_halved(module: nn.Module) -> NormLayer:
    return NormLayer("halved", "batch", len(module.g), 0.1, weight=module.g / 2)


@pytest.fixture
def _taught() -> None:
    register_norm(Halved, describe_halved)


@pytest.mark.usefixtures("_taught")
@pytest.mark.parametrize("cls", [Halved, HalvedChild])
def test_a_taught_layer_is_recorded_under_its_own_name(cls: type[nn.Module]):
    """Fails if a registered layer, or its subclass, is not found, or its formula is not used."""
    model, x = nn.Sequential(cls(C)), BY_NAME["batch norm"].batches()[0]
    with bnprobe.attach(model) as probe:
        y = model(x)
    (record,) = probe.recording.layers
    assert (record.kind, record.class_name, record.output) == ("halved", cls.__name__, "derived")
    np.testing.assert_allclose(record.gamma, model[0].g.detach().numpy() / 2)
    oracles.assert_same_moments(record.post, oracles.channel_moments(y.detach().flatten(2).numpy()))


def test_the_most_derived_class_wins_and_a_second_call_replaces_the_first():
    """Fails if a parent's description hides the child's, torch's own hides both, or the first one sticks."""
    plan = NormLayer("parent", "batch", C, 0.5)
    register_norm(nn.BatchNorm2d, lambda module: plan)
    assert describe(OwnBatchNorm(C)) == (plan,)
    register_norm(OwnBatchNorm, lambda module: replace(plan, kind="child"))
    assert describe(OwnBatchNorm(C))[0].kind == "child"
    assert describe(nn.BatchNorm2d(C))[0].kind == "parent"
    register_norm(OwnBatchNorm, lambda module: replace(plan, kind="second"))
    assert describe(OwnBatchNorm(C))[0].kind == "second"


@pytest.mark.usefixtures("_taught")
def test_a_taught_formula_that_does_not_fit_is_not_believed():
    """Fails if a description is trusted without a look: the wrong eps must end in reading the output."""
    register_norm(Halved, lambda module: replace(describe_halved(module), eps=3.0))
    model, x = nn.Sequential(Halved(C)), BY_NAME["batch norm"].batches()[0]
    with bnprobe.attach(model) as probe:
        y = model(x)
    (record,) = probe.recording.layers
    assert record.output == "read"
    assert record.mismatch > 1e-3
    oracles.assert_same_moments(record.post, oracles.channel_moments(y.detach().flatten(2).numpy()))


@pytest.mark.parametrize("bad", [nn.BatchNorm2d(C), int, "BatchNorm2d"], ids=repr)
def test_register_wants_a_class_of_modules(bad: object):
    """Fails if an instance is registered, and then never found."""
    with pytest.raises(BnprobeError, match="Pass the class itself"):
        register_norm(bad, describe_halved)  # type: ignore[arg-type]
