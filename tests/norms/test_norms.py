"""What is a norm, what it pools over, where its channels stand, and how a user's own is taught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import oracles
from support.models import (
    BY_NAME,
    CASES,
    EVAL_ONLY,
    C,
    Case,
    FaceRMSNorm,
    FirstLayerNorm,
    H,
    L,
    Norm,
    OwnBatchNorm,
    PlusOneRMSNorm,
    StrangeNorm,
    W,
)
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torchvision.ops import FrozenBatchNorm2d

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.norms import NormLayer, describe, is_norm, looks_like_norm, register_norm, registry


@pytest.fixture(autouse=True)
def _forget_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


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


def test_layouts_with_pairwise_distinct_sizes():
    """Fails if two axes are swapped: each value must stand where its channel says."""
    first = NormLayer("k", "batch", C, 0.0)
    last = NormLayer("k", "channels", C, 0.0, channels="last")
    x = torch.arange(2 * C * H * W).reshape(2, C, H, W).double()
    assert first.rows(x).shape == (2, C, H * W)
    assert torch.equal(first.rows(x)[1, 2], x[1, 2].ravel())
    tokens = x.permute(0, 2, 3, 1)
    assert last.rows(tokens).shape == (2, C, H * W)
    assert torch.equal(last.rows(tokens)[1, 2], x[1, 2].ravel())
    image = NormLayer("k", "channels", C * H * W, 0.0, channels="last", n_channel_dims=3)
    assert torch.equal(image.rows(x)[1, :, 0], x[1].ravel())
    assert image.rows(x).shape == (2, C * H * W, 1)


def test_layouts_without_some_dimension():
    """Fails if vectors, lone vectors or inputs without a batch are taken for something larger."""
    last = NormLayer("k", "channels", C, 0.0, channels="last")
    vector = torch.arange(3.0)
    assert torch.equal(last.rows(vector), vector[None, :, None])
    assert torch.equal(last.rows(vector.expand(2, 3)), vector.expand(2, 3)[..., None])
    lone = NormLayer("k", "instance", C, 0.0, unbatched_dims=2)
    x = torch.arange(C * L).reshape(C, L).double()
    assert lone.fits(x)
    assert not lone.fits(x.T)
    assert torch.equal(lone.rows(x), x[None])
    assert lone.rows(x.expand(2, C, L)).shape == (2, C, L)


def test_fits_refuses_other_shapes():
    """Fails if a plan for channels first accepts channels last, or a scalar."""
    first, last = NormLayer("k", "batch", C, 0.0), NormLayer("k", "channels", C, 0.0, channels="last")
    assert first.fits(torch.ones(2, C, H))
    assert not first.fits(torch.ones(2, H, C))
    assert not first.fits(torch.ones(C))
    assert last.fits(torch.ones(2, H, C))
    assert not last.fits(torch.ones(2, C, H))
    assert not last.fits(torch.tensor(1.0))
    image = NormLayer("k", "channels", C * H, 0.0, channels="last", n_channel_dims=2)
    assert image.fits(torch.ones(2, C, H))
    assert not image.fits(torch.ones(C * H))


def test_rows_are_views_of_common_layouts():
    """Fails if every norm's input is copied before it is read: memory would double."""
    x = torch.ones(2, C, H, W)
    assert NormLayer("k", "batch", C, 0.0).rows(x).data_ptr() == x.data_ptr()
    tokens = torch.ones(2, L, C)
    assert NormLayer("k", "channels", C, 0.0, channels="last").rows(tokens).data_ptr() == tokens.data_ptr()


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


def test_look_alikes_offer_every_reading():
    """Fails if 1 + w, channels first or the centred reading is never tried for a class known by name."""
    plans = describe(FaceRMSNorm(C))
    assert {(p.kind, p.weight_offset, p.channels) for p in plans} == {
        (kind, offset, channels)
        for kind in ("rms_norm", "layer_norm")
        for offset in (0.0, 1.0)
        for channels in ("first", "last")
    }
    assert plans[0].eps == 1e-6
    assert (plans[0].kind, describe(FirstLayerNorm(C))[0].kind) == ("rms_norm", "layer_norm")


def test_a_group_norm_by_its_looks():
    """Fails if the number of groups is not read from the module."""

    class MyGroupNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.num_groups, self.eps = nn.Parameter(torch.ones(6)), 2, 1e-5

    (plan,) = describe(MyGroupNorm())
    assert (plan.kind, plan.pools, plan.n_groups, plan.n_channels) == ("group_norm", "group", 2, 6)


def test_lazy_norms_are_norms_before_their_first_pass():
    """Fails if an uninitialized parameter is asked for its size."""
    assert is_norm(nn.LazyBatchNorm2d())
    assert is_norm(nn.LazyInstanceNorm1d())


def test_rms_norm_of_doubles_without_eps():
    """Fails if eps is the machine epsilon of the default type and not of the input, as torch takes it.

    One row is as small as the root of the smaller epsilon, so that the two differ.
    """
    model = nn.Sequential(nn.RMSNorm(C)).double()
    x = torch.randn(2, L, C, dtype=torch.float64) * 1e-6
    with bnprobe.attach(model) as probe:
        model(x)
    assert probe.recording.layers[0].mismatch < 1e-9


# Teaching


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


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"pools": "layer"}, "Use one of batch, instance, group, channels"),
        ({"channels": "middle"}, "Use 'first' or 'last'"),
        ({"uses_running": True}, "Give both, or uses_running=False"),
        ({"n_groups": 2}, "3 channels do not fall into 2 groups"),
        ({"n_groups": 0}, "do not fall into 0 groups"),
    ],
    ids=str,
)
def test_a_plan_checks_itself(changes: dict[str, object], advice: str):
    """Fails if a user's description with a misspelt word is believed until the numbers are strange."""
    with pytest.raises(BnprobeError, match=advice):
        NormLayer(**{"kind": "k", "pools": "batch", "n_channels": C, "eps": 0.0, **changes})  # type: ignore[arg-type]


def test_one_plus_w_is_told_from_w():
    """Fails if gamma of a Gemma-like norm is reported as w: with w = 0 it would look dead."""
    model = nn.Sequential(PlusOneRMSNorm(C)).double()
    with bnprobe.attach(model) as probe:
        model(torch.randn(2, L, C, dtype=torch.float64))
    np.testing.assert_array_equal(probe.recording.layers[0].gamma, np.ones(C))
