"""torch's own norms: the plan of each reproduces the real output."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support import oracles
from support.models import CASES, EVAL_ONLY, C, Case, L, Norm
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.norms import NormLayer, describe, is_torchs_own
from bnprobe.norms.torch_norms import batch_norm, eps_of, tensor_of


def rows_of(plan: NormLayer, x: Tensor) -> np.ndarray:
    return plan.rows(x).double().numpy()


def formula(plan: NormLayer, x: np.ndarray) -> np.ndarray:
    """The plan, applied to rows by the oracles alone, (N, C, P)."""
    gamma = None if plan.weight is None else plan.weight.detach().numpy().ravel() + plan.weight_offset
    beta = None if plan.bias is None else plan.bias.detach().numpy().ravel()
    if plan.uses_running:
        mean, var = plan.running_mean.numpy(), plan.running_var.numpy()
        return oracles.stored_norm(x, mean, var, gamma, beta, plan.eps)
    if plan.pools == "batch":
        return oracles.batch_norm(x, gamma, beta, plan.eps)
    if plan.pools in ("instance", "group"):
        groups = plan.n_channels if plan.pools == "instance" else plan.n_groups
        return oracles.group_norm(x, groups, gamma, beta, plan.eps)
    return (oracles.layer_norm if plan.centred else oracles.rms_norm)(x, gamma, beta, plan.eps)


SINGLE = [
    case
    for case in CASES + EVAL_ONLY
    if set(case.norms) == {"0"} and case.name not in ("fused activation", "in-place ReLU", "lazy")
]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.name)
def test_some_plan_reproduces_the_real_output(case: Case, training: bool):
    """Fails if what a plan says (pooling, eps, offset, channels) is not what the layer does.

    The real output comes from torch, the expected one from loops; the first plan must fit where there is one.
    """
    if training and case in EVAL_ONLY:
        training = False
    model, norm = case.model(training), case.norms["0"]
    inputs: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0].clone()))
    plans = [replace(plan) for plan in describe(model[0])]
    stored = [
        None if p.running_mean is None else (p.running_mean.clone(), p.running_var.clone()) for p in plans
    ]
    y = case.call(model, case.batches()[0]).detach()
    (x,) = inputs
    gaps = []
    for plan, kept in zip(plans, stored, strict=True):
        plan = plan if kept is None else replace(plan, running_mean=kept[0], running_var=kept[1])
        if not plan.fits(x):
            gaps.append(np.inf)
            continue
        np.testing.assert_array_equal(
            rows_of(plan, x), norm.rows(x.numpy()) if _same_layout(plan, norm) else rows_of(plan, x)
        )
        gaps.append(np.abs(formula(plan, rows_of(plan, x)) - rows_of(plan, y)).max())
    best = int(np.argmin(gaps))
    assert gaps[best] < 1e-9, dict(zip(map(str, plans), gaps, strict=True))
    assert (plans[best].kind, plans[best].pool.recorded_as) == (norm.kind, norm.pools)
    assert plans[best].weight_offset == norm.weight_offset
    assert plans[best].centred == norm.centred
    assert sum(gap < 1e-9 for gap in gaps) == 1, "two plans fit: the data do not tell them apart"


def _same_layout(plan: NormLayer, norm: Norm) -> bool:
    return (plan.channels == "last") == bool(norm.last)


def test_torchs_own_classes_have_one_plan():
    """Fails if a plain layer is tried in several ways: the first call would cost twice."""
    for module in (
        nn.BatchNorm2d(C),
        nn.InstanceNorm2d(C),
        nn.GroupNorm(1, C),
        nn.LayerNorm(C),
        nn.RMSNorm(C),
    ):
        for training in (False, True):
            assert len(describe(module.train(training))) == 1


@pytest.mark.parametrize(
    ("module", "training", "uses"),
    [
        (nn.BatchNorm2d(C), False, True),
        (nn.BatchNorm2d(C), True, False),
        (nn.BatchNorm2d(C, track_running_stats=False), False, False),
        (nn.SyncBatchNorm(C), False, True),
        (FrozenBatchNorm2d(C), True, True),
        (FrozenBatchNorm2d(C), False, True),
        (nn.InstanceNorm2d(C), False, False),
        (nn.InstanceNorm2d(C, track_running_stats=True), False, True),
        (nn.InstanceNorm2d(C, track_running_stats=True), True, False),
    ],
    ids=str,
)
def test_best_plan_knows_which_statistics_normalize(module: nn.Module, training: bool, uses: bool):
    """Fails if the mode decides alone: without stored statistics evaluation takes the batch's."""
    assert describe(module.train(training))[0].uses_running is uses


def test_rms_norm_of_doubles_without_eps():
    """Fails if eps is the machine epsilon of the default type and not of the input, as torch takes it.

    One row is as small as the root of the smaller epsilon, so that the two differ.
    """
    model = nn.Sequential(nn.RMSNorm(C)).double()
    x = torch.randn(2, L, C, dtype=torch.float64) * 1e-6
    with bnprobe.attach(model) as probe:
        model(x)
    assert probe.recording.layers[0].mismatch < 1e-9


def module(**attributes: Any) -> nn.Module:
    made = nn.Module()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("attributes", "eps"),
    [
        ({"eps": 1e-3}, 1e-3),
        ({"eps": 1}, 1.0),
        ({"eps": True}, None),
        ({"eps": "1e-3"}, None),
        ({"epsilon": 2e-3}, 2e-3),
        ({"variance_epsilon": 3e-3}, 3e-3),
        ({"norm_eps": 4e-3}, 4e-3),
        ({"norm_eps": 4e-3, "eps": 1e-3}, 1e-3),
        ({}, None),
    ],
)
def test_eps_under_the_names_that_classes_give_it(attributes: dict[str, Any], eps: float | None) -> None:
    """Fails if a switch or a text is taken for eps, or another name goes before torch's."""
    assert eps_of(module(**attributes)) == eps
    assert eps_of(module(**attributes), 0.5) == (0.5 if eps is None else eps)


def test_the_first_attribute_that_is_a_tensor() -> None:
    """Fails if a name that holds something else ends the search."""
    one, two = torch.ones(1), torch.ones(2)
    assert tensor_of(module(a=3, b=one, c=two), "a", "b", "c") is one
    assert tensor_of(module(a=3), "a", "b") is None


@pytest.mark.parametrize(("momentum", "expected"), [(0.1, 0.1), (1, 1.0), (None, None), ("auto", None)])
def test_momentum_is_a_number_or_none(momentum: object, expected: float | None) -> None:
    """Fails if a plain average is taken for a momentum of 0, or a word for a number."""
    norm = nn.BatchNorm2d(3)
    norm.momentum = momentum  # type: ignore[assignment]
    (plan,) = batch_norm(norm)
    assert plan.momentum == expected


def test_a_batch_norm_without_vectors_knows_its_channels() -> None:
    """Fails if nothing but vectors tells how many channels there are, or half a pair of statistics counts as stored."""
    bare = nn.BatchNorm2d(5, affine=False, track_running_stats=False)
    assert describe(bare)[0].n_channels == 5
    assert describe(nn.BatchNorm2d(5, track_running_stats=False))[0].n_channels == 5
    assert describe(nn.InstanceNorm2d(5))[0].n_channels == 5
    half = nn.BatchNorm2d(5).eval()
    half.running_mean = None
    assert not describe(half)[0].uses_running


def test_an_eps_of_zero_stays_zero() -> None:
    """Fails if an eps of 0 is taken for none."""
    assert describe(nn.BatchNorm2d(3, eps=0.0))[0].eps == 0.0
    assert describe(nn.RMSNorm(3, eps=0.0))[0].eps == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_without_eps_takes_that_of_its_type(dtype: torch.dtype, affine: bool) -> None:
    """Fails if the machine epsilon is that of another type; without a weight it is torch's default type."""
    norm = nn.RMSNorm(3, elementwise_affine=affine).to(dtype)
    assert describe(norm)[0].eps == torch.finfo(dtype if affine else torch.get_default_dtype()).eps


@pytest.mark.parametrize(
    ("norm", "dims"),
    [
        (nn.InstanceNorm1d(3), 2),
        (nn.InstanceNorm2d(3), 3),
        (nn.InstanceNorm3d(3), 4),
        (nn.BatchNorm2d(3), None),
    ],
)
def test_inputs_without_a_batch(norm: nn.Module, dims: int | None) -> None:
    """Fails if an instance norm's lone image is taken for a batch."""
    assert describe(norm)[0].unbatched_dims == dims


def test_layers_of_ones_own_may_have_channels_first() -> None:
    """Fails if a subclass of LayerNorm over one dimension is read in one way only, or one over several in two."""

    class Own(nn.LayerNorm):
        """As torchvision's LayerNorm2d."""

    assert [plan.channels for plan in describe(Own(3))] == ["last", "first"]
    assert [plan.channels for plan in describe(Own((3, 4)))] == ["last"]
    assert [plan.channels for plan in describe(nn.LayerNorm(3))] == ["last"]


@pytest.mark.parametrize("channels", ["first", "last"])
def test_no_values_are_no_rows(channels: str) -> None:
    """Fails if an empty batch, or images without a pixel, are reshaped by dividing by nothing."""
    plan = NormLayer("k", "channels", 3, 0.0, channels=channels)
    for shape in ((0, 3, 3), (2, 0, 3)) if channels == "last" else ((0, 3, 4), (2, 3, 0)):
        assert plan.rows(torch.ones(shape)).shape == (0, 3, 1)


def test_what_is_torchs_own() -> None:
    """Fails if a subclass counts as torch's own class."""

    class Own(nn.BatchNorm2d):
        """Someone's."""

    assert is_torchs_own(nn.BatchNorm2d(3))
    assert not is_torchs_own(Own(3))
    assert not is_torchs_own(nn.ReLU())


def test_statistics_that_a_class_of_ones_own_may_never_use() -> None:
    """Fails if a frozen norm of someone's is read by its mode alone: the other reading comes second."""

    class Own(nn.BatchNorm2d):
        """Frozen in a way of its own."""

    for training in (True, False):
        plans = describe(Own(3).train(training))
        assert [plan.uses_running for plan in plans] == [not training, training]


def test_what_carries_the_vectors_of_a_batch_norm_but_no_eps_has_torchs() -> None:
    """Fails if the eps of a class that hides its own is taken for anything but the default of torch."""
    bare = module(
        running_mean=torch.zeros(2), running_var=torch.ones(2), weight=torch.ones(2), bias=torch.zeros(2)
    )
    assert {plan.eps for plan in batch_norm(bare)} == {nn.BatchNorm2d(2).eps}
