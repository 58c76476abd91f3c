"""torch's own norms: the plan of each reproduces the real output."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import oracles
from support.models import CASES, EVAL_ONLY, C, Case, L, Norm
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.norms import NormLayer, describe


def rows_of(plan: NormLayer, x: Tensor) -> np.ndarray:
    return plan.rows(x).double().numpy()


def formula(plan: NormLayer, x: np.ndarray) -> np.ndarray:
    """The plan, applied by the twins alone to rows (N, C, P)."""
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
    assert (plans[best].kind, plans[best].pools) == (norm.kind, norm.pools)
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
