"""The plan of a functional norm by its arguments, and who is informed of calls."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from bnprobe.norms.functional import leave, listen, plan_of

X = torch.randn(2, 3, 4, 5)
MEAN, VAR, WEIGHT, BIAS = (torch.full((3,), value) for value in (0.1, 2.0, 1.5, -0.5))


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("own", [True, False])
def test_the_plan_of_norms_with_running_statistics(name: str, own: bool) -> None:
    """Fails if channels are counted elsewhere, two vectors change places, or the statistics in use are the others."""
    plan = plan_of(name, (X, MEAN, VAR, WEIGHT, BIAS, own, 0.3, 1e-4))
    assert plan is not None
    assert (plan.kind, plan.n_channels, plan.eps, plan.momentum) == (name, 3, 1e-4, 0.3)
    assert plan.uses_running is not own
    assert plan.running_mean is MEAN
    assert plan.running_var is VAR
    assert plan.weight is WEIGHT
    assert plan.bias is BIAS
    assert plan.pools == name.removesuffix("_norm")


def test_the_plan_of_a_group_norm() -> None:
    """Fails if groups are channels, or the other way round."""
    plan = plan_of("group_norm", (torch.randn(2, 6, 4), 3, None, None, 1e-3))
    assert plan is not None
    assert (plan.kind, plan.n_channels, plan.n_groups, plan.eps, plan.weight) == (
        "group_norm",
        6,
        3,
        1e-3,
        None,
    )


def test_the_plans_of_norms_over_the_last_dimensions() -> None:
    """Fails if a layer norm is not centred, an RMS norm is, or an eps that is not given is another than torch's."""
    layer = plan_of("layer_norm", (X, (4, 5), None, None, 1e-3))
    rms = plan_of("rms_norm", (X.double(), (5,), torch.ones(5), None))
    given = plan_of("rms_norm", (X, (5,), None, 0.5))
    assert layer is not None
    assert rms is not None
    assert given is not None
    assert (layer.n_channels, layer.n_channel_dims, layer.channels, layer.centred, layer.eps) == (
        20,
        2,
        "last",
        True,
        1e-3,
    )
    assert (rms.n_channels, rms.n_channel_dims, rms.centred, rms.eps) == (
        5,
        1,
        False,
        torch.finfo(torch.float64).eps,
    )
    assert given.eps == 0.5


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("batch_norm", ("no tensor", MEAN, VAR, WEIGHT, BIAS, True, 0.1, 1e-5)),
        ("batch_norm", (torch.tensor(1.0), MEAN, VAR, WEIGHT, BIAS, True, 0.1, 1e-5)),
        ("layer_norm", (X, None, None, None, 1e-5)),
        ("group_norm", (X, 2)),
    ],
)
def test_what_torch_refuses_has_no_plan(name: str, args: tuple[Any, ...]) -> None:
    """Fails if torch's own error is hidden by one of ours."""
    assert plan_of(name, args) is None


def test_a_vector_made_for_the_call_does_not_keep_its_graph() -> None:
    """Fails if a gain that was computed keeps what it was computed from."""
    made = torch.ones(3, requires_grad=True) * 2
    plan = plan_of("batch_norm", (X, None, None, made, None, True, 0.1, 1e-5))
    assert plan is not None
    assert plan.weight is not None
    assert not plan.weight.requires_grad
    leaf = torch.ones(3, requires_grad=True)
    kept = plan_of("batch_norm", (X, None, None, leaf, None, True, 0.1, 1e-5))
    assert kept is not None
    assert kept.weight is leaf


class Counting:
    """Hears of calls, and of outputs if it wants to."""

    def __init__(self, wants_output: bool) -> None:
        self.wants_output, self.calls, self.outputs = wants_output, 0, 0

    def function_called(self, name: str, args: tuple[Any, ...]) -> Any:
        self.calls += 1
        return self._finish if self.wants_output else None

    def _finish(self, y: Any) -> None:
        self.outputs += 1


def test_who_leaves_hears_no_more_and_the_others_do() -> None:
    """Fails if the wrong one leaves, one that wants no output gets it, or torch's functions stay replaced."""
    before = F.layer_norm.__code__
    first, second = Counting(wants_output=True), Counting(wants_output=False)
    listen(first)
    listen(second)
    try:
        F.layer_norm(X, (5,))
        assert F.layer_norm.__code__ is not before
        assert (first.calls, first.outputs, second.calls, second.outputs) == (1, 1, 1, 0)
        leave(first)
        F.layer_norm(X, (5,))
        assert (first.calls, second.calls) == (1, 2)
        assert F.layer_norm.__code__ is not before
    finally:
        leave(first)
        leave(second)
    assert F.layer_norm.__code__ is before
    F.layer_norm(X, (5,))
    assert second.calls == 2
