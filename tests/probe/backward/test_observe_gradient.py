"""What backward passes did, against graphs cut at every norm and against the formulas by hand."""

from __future__ import annotations

import gc
import importlib.util
import json
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from functools import reduce
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save as pack
from support import oracles
from support.gradients import (
    Cut,
    Pull,
    Site,
    assert_gradient_true,
    assert_gradients_true,
    assert_same,
    assert_same_gradients,
    dgamma_dbeta_by_hand,
    dx_by_hand,
    energy_by_hand,
    loss_of,
    together,
)
from support.models import (
    BN,
    BY_NAME,
    CASES,
    EVAL_ONLY,
    C,
    Case,
    Checkpointed,
    H,
    L,
    N,
    Norm,
    Twice,
    W,
    learn,
    one,
)
from support.paths import DATA, ROOT
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bnprobe
from bnprobe import models
from bnprobe.errors import BadRecordingFile
from bnprobe.measures import tables
from bnprobe.models.image_folder import find_images
from bnprobe.recording import About, GradientRecord, Recording

BOTH_MODES = [(case, False) for case in CASES + EVAL_ONLY] + [(case, True) for case in CASES]
FUSED = "fused activation"
GROUP = Norm("group_norm", "group")
INSTANCE = Norm("instance_norm", "instance")
LAYER = Norm("layer_norm", "channels", last=1)


def _name(value: object) -> str:
    return value.name if isinstance(value, Case) else ("train" if value else "eval")


def wanted(x: Tensor) -> Tensor:
    """A copy that is a leaf and wants a gradient."""
    return x.detach().clone().requires_grad_()


def trained(case: Case, model: nn.Module, batches: list[Tensor], **options: Any) -> Recording:
    """A forward and a backward pass per batch; the input wants a gradient too."""
    with bnprobe.attach(model, **options) as probe:
        for i, x in enumerate(batches):
            torch.manual_seed(i)
            loss_of(case.call(model, wanted(x))).backward()
    return probe.recording


def twins(case: Case, cut: Cut, batches: list[Tensor]) -> list[dict[Site, Pull]]:
    """The same passes in the model that is cut at its norms; checkpointed parts run once, as any other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.models.checkpoint", lambda part, x, use_reentrant: part(x))
        return [
            cut.pulls(lambda model, x=x: loss_of(case.call(model, wanted(x))), seed=i)
            for i, x in enumerate(batches)
        ]


def images(n: int = N, c: int = C, seed: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """One batch of awkward images."""
    return Case("", nn.Identity, {}, shape=(c, H, W)).batches((n,), dtype, seed)[0]


def learned(model: nn.Module, training: bool = True) -> nn.Module:
    """Seeded, float64, with learned-looking vectors."""
    learn(model.double())
    return model.train(training)


def gradients(recording: Recording) -> dict[str, GradientRecord | None]:
    return {record.site: record.gradient for record in recording.layers}


def probed(model: nn.Module, *losses: Callable[[], Tensor]) -> Recording:
    """The recording of some backward passes."""
    with bnprobe.attach(model) as probe:
        for loss in losses:
            loss().backward()
    return probe.recording


# Every number


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=_name)
def test_every_gradient_agrees_with_a_cut_graph(case: Case, training: bool):
    """Fails if any number of a gradient record is not what autograd gives the norm alone, in float64.

    Moments of dy and dx, energy, and over passes dgamma, dbeta and |gamma dgamma + beta dbeta|.
    """
    batches = case.batches()
    recording = trained(case, case.model(training), batches)
    assert_gradients_true(recording, case, twins(case, Cut(case.model(training), list(case.norms)), batches))


@pytest.mark.parametrize(
    ("case", "training"), [pair for pair in BOTH_MODES if pair[0].name != FUSED], ids=_name
)
def test_every_gradient_agrees_with_the_formulas(case: Case, training: bool):
    """Fails if dx, dgamma or dbeta is another than the closed forms give by numpy: autograd takes no part."""
    batches = case.batches()
    passes = twins(case, Cut(case.model(training), list(case.norms)), batches)
    for record in trained(case, case.model(training), batches).layers:
        norm, found = case.norms[record.layer], record.gradient
        pulls = [one_pass[record.layer, record.call] for one_pass in passes]
        dx = [dx_by_hand(norm, pull, record.eps) for pull in pulls]
        by_rows = Norm(norm.kind, norm.pools)  # what is in rows has its channels in dimension 1
        oracles.assert_same_moments(found.dx, together(by_rows, dx), 1e-8)
        by_hand = [dgamma_dbeta_by_hand(norm, pull, record.eps) for pull in pulls]
        for name, vectors in zip(("gamma", "beta"), zip(*by_hand, strict=True), strict=True):
            if getattr(found, name) is not None:
                # a norm that follows may take all pull away: what is left is rounding of sums of this size
                size = np.max([np.abs(norm.rows(pull.dy)).sum() for pull in pulls])
                expected = oracles.moments(np.stack(vectors))
                for field in ("mean", "low", "high"):
                    real = getattr(getattr(found, name), field)
                    np.testing.assert_allclose(real, expected[field], rtol=1e-8, atol=1e-12 * size)


class CastingRMSNorm(nn.Module):
    """As in transformers: statistics in float32 whatever the input's type, eps under another name."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))
        self.variance_epsilon = 1e-6

    def forward(self, hidden_states: Tensor) -> Tensor:
        kind = hidden_states.dtype
        x = hidden_states.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(kind)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-5), (torch.float32, 1e-4)])
def test_a_norm_that_changes_the_type_inside(dtype, rtol):
    """Fails if the walk through the graph stops at a conversion, and dx or dgamma is lost."""
    case = Case(
        "casting", one(lambda: CastingRMSNorm(C)), {"0": replace(LAYER, kind="rms_norm", centred=False)}
    )
    case = replace(case, shape=(L, C))
    model, batches = case.model(dtype=dtype), case.batches(dtype=dtype)
    expected = twins(case, Cut(case.model(dtype=dtype), ["0"]), batches)
    assert_gradients_true(trained(case, model, batches), case, expected, rtol)


class Whitened(nn.Module):
    """A norm of our own with gamma and beta under names of our own, in operations that use x four times."""

    def __init__(self) -> None:
        super().__init__()
        self.stretch, self.shift = nn.Parameter(torch.tensor([0.5, -2.0, 1.5])), nn.Parameter(torch.ones(C))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((0, 2, 3), keepdim=True)
        var = (x * x).mean((0, 2, 3), keepdim=True) - mean**2
        return (x - mean) / (var + 0.1).sqrt() * self.stretch[:, None, None] + self.shift[:, None, None]


def test_a_registered_norm_in_several_operations(monkeypatch):
    """Fails if an input that the norm uses more than once gives only one part of dx, or names matter."""
    monkeypatch.setattr("bnprobe.norms.registry._registered", {})
    bnprobe.register_norm(
        Whitened,
        lambda module: bnprobe.NormLayer(
            "whitened", "batch", C, 0.1, weight=module.stretch, bias=module.shift
        ),
    )
    model, x = nn.Sequential(nn.Conv2d(C, C, 1), Whitened()).double(), images()
    twin = nn.BatchNorm2d(C, eps=0.1).double()
    twin.weight.data, twin.bias.data = model[1].stretch.data, model[1].shift.data
    cut = Cut(nn.Sequential(model[0], twin), ["1"])
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    pull = cut.pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    assert_gradient_true(record.gradient, BN, [pull], 0.1)
    np.testing.assert_allclose(record.gradient.gap_centre, 0, atol=1e-10)


class Gained(nn.BatchNorm2d):
    """A batch norm that multiplies by one more learned vector."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.gain = nn.Parameter(torch.linspace(-1, 2, n)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gain


def test_a_norm_with_a_parameter_more():
    """Fails if the gradient of a parameter that is neither gamma nor beta adds to one of them."""
    model, x = learned(nn.Sequential(Gained(C))), images()
    cut = Cut(learned(nn.Sequential(Gained(C))), ["0"])
    cut.model.load_state_dict(model.state_dict())
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    pull = cut.pulls(lambda m: loss_of(m(wanted(x))))["0", 0]
    assert_gradient_true(record.gradient, BN, [pull], record.eps)


# The way in and the way round


class Beside(nn.Module):
    """The norm's input is used elsewhere too: pre-activation, a transformer's residual, a plain addition."""

    def __init__(self, norm: Callable[[], nn.Module], feeds: bool, in_place: bool = False) -> None:
        super().__init__()
        self.before = nn.Conv2d(C, C, 1) if feeds else nn.Identity()
        self.norm = norm()
        self.conv = nn.Conv2d(C, C, 3, padding=1)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.norm(x)
        if self.in_place:
            y += x
            return y.sigmoid_()
        return self.conv(y) + x * 3 - x.flip(2).abs()


BESIDE = {
    "batch": (lambda: nn.BatchNorm2d(C), BN),
    "instance": (lambda: nn.InstanceNorm2d(C, affine=True), INSTANCE),
    "group": (lambda: nn.GroupNorm(1, C), GROUP),
    "layer": (lambda: nn.LayerNorm(W), LAYER),
    "RMS by its looks": (lambda: CastingRMSNorm(W), replace(LAYER, kind="rms_norm", centred=False)),
}


@pytest.mark.parametrize("training", [True, False], ids=_name)
@pytest.mark.parametrize("feeds", [True, False], ids=["fed", "leaf"])
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "residual"])
@pytest.mark.parametrize("kind", BESIDE)
def test_dx_leaves_out_the_ways_round_the_norm(kind, feeds, in_place, training):
    """Fails if dx is the gradient of the tensor, and not what came through the norm only."""
    build, norm = BESIDE[kind]
    torch.manual_seed(3)
    model = learned(Beside(build, feeds, in_place), training)
    x = images() / 10
    cut = Cut(learned(Beside(build, feeds, in_place), training), ["norm"])
    cut.model.load_state_dict(model.state_dict())
    expected = cut.pulls(lambda m: loss_of(m(wanted(x))))["norm", 0]
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    rtol = 1e-8 if "RMS" not in kind else 1e-5
    assert_gradient_true(record.gradient, norm, [expected], record.eps, rtol)


class Encoder(nn.Module):
    """torch's own transformer layer, norms first, dropout off."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 7, 0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_a_transformer_keeps_its_residual_stream_out_of_dx():
    """Fails if the residual stream, which is the norm's input, adds to dx."""
    torch.manual_seed(3)
    norms = {"layer.norm1": LAYER, "layer.norm2": LAYER}
    case = Case("encoder", Encoder, norms, shape=(L, 6))
    recording = trained(case, case.model(True), case.batches())
    assert_gradients_true(recording, case, twins(case, Cut(case.model(True), list(norms)), case.batches()))


class Halves(nn.Module):
    """A split tensor: the norm is given the second half, and `norm` decides what becomes of the first."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(C, 2 * C, 1), norm

    def forward(self, x: Tensor) -> Tensor:
        gate, x = self.conv(x).chunk(2, 1)
        return self.norm(x, gate) if isinstance(self.norm, GatedNorm) else self.norm(x) * gate


class GatedNorm(nn.BatchNorm2d):
    """A batch norm with a second input, which comes from the same node as the first."""

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        return super().forward(x) * gate.sigmoid()


def test_an_input_that_is_one_of_several_parts():
    """Fails if the input is known by its node alone, or only as the first output of it."""
    torch.manual_seed(3)
    model, x = learned(Halves(nn.BatchNorm2d(C))), images()
    cut = Cut(learned(Halves(nn.BatchNorm2d(C))), ["norm"])
    cut.model.load_state_dict(model.state_dict())
    expected = cut.pulls(lambda m: loss_of(m(x)))["norm", 0]
    (record,) = probed(model, lambda: loss_of(model(x))).layers
    assert_gradient_true(record.gradient, BN, [expected], record.eps)


def test_a_norm_that_is_given_two_parts_of_a_tensor():
    """Fails if a second input from the same node adds to dx: dx is of the first, which sums to zero."""
    model = learned(Halves(GatedNorm(C)))
    (record,) = probed(model, lambda: loss_of(model(images()))).layers
    np.testing.assert_allclose(record.gradient.gap_centre, 0, atol=1e-10)
    np.testing.assert_array_equal(record.gradient.dx.n, record.gradient.dy.n)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(C), nn.InstanceNorm2d(C), nn.GroupNorm(1, C), nn.LayerNorm((H, W))], ids=repr
)
def test_an_in_place_relu_does_not_move_the_output(norm):
    """Fails if dy is that of the ReLU's output: an in-place operation takes the tensor over, view or not."""
    torch.manual_seed(3)
    x, model = images(), learned(nn.Sequential(norm, nn.ReLU(inplace=True)))
    same = learned(nn.Sequential(norm, nn.ReLU()))
    one_way, other = (probed(m, lambda m=m: loss_of(m(wanted(x)))).layers[0].gradient for m in (model, same))
    assert_same_gradients(one_way, other, rtol=1e-12)
    assert (model[0](x) < 0).any(), "some outputs must be negative, or this proves nothing"


def test_weights_that_two_norms_share():
    """Fails if the gradient of a shared parameter is its sum over both norms, and not each norm's own."""
    model = nn.Sequential(nn.BatchNorm2d(C), nn.Tanh(), nn.BatchNorm2d(C)).double()
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    learn(model)
    x = images()
    cut = Cut(nn.Sequential(nn.BatchNorm2d(C), nn.Tanh(), nn.BatchNorm2d(C)).double(), ["0", "2"])
    cut.model.load_state_dict(model.state_dict())
    expected = cut.pulls(lambda m: loss_of(m(wanted(x))))
    for record in probed(model, lambda: loss_of(model(wanted(x)))).layers:
        assert_gradient_true(record.gradient, BN, [expected[record.layer, 0]], record.eps)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "sliced", "expanded"])
def test_gradients_of_any_layout(layout):
    """Fails if a layout in memory moves values between channels, of dy or of dx."""
    case, x = BY_NAME["instance norm with vectors" if layout == "sliced" else "batch norm"], images()
    arranged = {
        "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "sliced": lambda t: torch.cat([t, t], 3)[..., ::2][..., :W],
        "expanded": lambda t: t[:, :, :1].expand(-1, -1, H, -1),
    }[layout]

    def loss(model: nn.Module) -> Tensor:
        return loss_of(arranged(model(arranged(wanted(x)))))

    model = case.model(True)
    (record,) = probed(model, lambda: loss(model)).layers
    expected = Cut(case.model(True), ["0"]).pulls(loss)
    assert_gradient_true(record.gradient, case.norms["0"], [expected["0", 0]], record.eps)


@pytest.mark.parametrize("name", ["batch norm", "instance norm with vectors", "layer norm", "group norm"])
def test_a_gradient_without_strides(name):
    """Fails if the expanded gradient that sum() hands back (every stride 0) is read as one value."""
    case = BY_NAME[name]
    (x,) = case.batches((4,))
    model = case.model(True)
    (record,) = probed(model, lambda: 2 * case.call(model, wanted(x)).sum()).layers
    gradient = record.gradient
    np.testing.assert_array_equal(gradient.dy.n, x.numel() / record.n_channels)
    np.testing.assert_array_equal([gradient.dy.low, gradient.dy.high, gradient.dy.mean], 2)


# What autograd did not compute


def test_an_input_that_wants_no_gradient():
    """Fails if dx is made up where autograd computed none; dy and dgamma are there."""
    case = BY_NAME["batch norm"]
    model, x = case.model(True), case.batches()[0]
    (record,) = probed(model, lambda: loss_of(model(x))).layers
    expected = Cut(case.model(True), ["0"]).pulls(lambda m: loss_of(m(x)))
    assert_gradient_true(record.gradient, BN, [expected["0", 0]], record.eps, with_dx=False)
    assert np.isnan(record.gradient.gap_centre).all()


@pytest.mark.parametrize("frozen", [("weight",), ("bias",), ("weight", "bias")], ids=repr)
def test_frozen_vectors_have_no_gradient(frozen):
    """Fails if a frozen gamma or beta is given a gradient, the other's, or takes dy away."""
    model, cut = (BY_NAME["batch norm"].model(True) for _ in range(2))
    for module in (model[0], cut[0]):
        for name in frozen:
            getattr(module, name).requires_grad_(False)
    x = images()
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    pull = Cut(cut, ["0"]).pulls(lambda m: loss_of(m(wanted(x))))["0", 0]
    assert (pull.dgamma is None, pull.dbeta is None) == ("weight" in frozen, "bias" in frozen)
    assert_gradient_true(record.gradient, BN, [pull], record.eps)


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "gradients=False", "no backward"])
def test_no_gradient_is_no_record(how):
    """Fails if a forward pass alone leaves a gradient record, or one is made although it was declined."""
    case = BY_NAME["mixed"]
    model, (x, *_) = case.model(True), case.batches()
    with bnprobe.attach(model, gradients=how != "gradients=False") as probe:
        if how == "no_grad":
            with torch.no_grad():
                model(wanted(x))
        elif how == "inference_mode":
            with torch.inference_mode():
                model(x)
        else:
            loss = loss_of(model(wanted(x)))
            if how == "gradients=False":
                loss.backward()
    assert set(gradients(probe.recording).values()) == {None}
    assert probe.recording.about.n_forwards == 1


def test_backward_after_detach_is_not_recorded():
    """Fails if hooks that live on in the graph write to a recording that is closed, or raise."""
    model, x = BY_NAME["mixed"].model(True), images(4)
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
    loss.backward()
    assert set(gradients(probe.recording).values()) == {None}
    assert model.bn.weight.grad is not None


def test_a_norm_that_the_loss_does_not_use():
    """Fails if a norm whose output goes nowhere gets a record of zeros, or stops the others."""
    model = nn.ModuleDict({"used": nn.BatchNorm2d(C), "spare": nn.BatchNorm2d(C)}).double()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = model

        def forward(self, x: Tensor) -> Tensor:
            self.norms["spare"](x)
            return self.norms["used"](x)

    net, x = Net(), images()
    found = gradients(probed(net, lambda: loss_of(net(wanted(x)))))
    assert found["norms.spare"] is None
    assert found["norms.used"].n_passes == 1


def test_an_output_that_a_zero_reaches():
    """Fails if a gradient of zeros is taken for none: this norm was reached, and nothing pulls on it."""
    model, x = BY_NAME["batch norm"].model(True), images()
    (record,) = probed(model, lambda: (model(wanted(x)) * 0).sum()).layers
    np.testing.assert_array_equal(record.gradient.dy.high, 0)
    assert tables(probed(model, lambda: (model(wanted(x)) * 0).sum())).layers["no_gradient"][0] == 1


# Several passes


def one_norm(training: bool = True) -> tuple[nn.Module, Callable[..., dict[Site, Pull]]]:
    """A batch norm behind a convolution, and its twin."""
    build = one_behind_conv(lambda: nn.BatchNorm2d(C))
    model, other = learned(build(), training), build().double().train(training)
    other.load_state_dict(model.state_dict())
    return model, Cut(other, ["1"]).pulls


def one_behind_conv(norm: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(C, C, 3), norm())


def test_two_losses_on_one_graph_are_two_passes():
    """Fails if a second backward pass over the same graph is lost, or its pieces join the first's."""
    (model, pulls), x = one_norm(), images()
    with bnprobe.attach(model) as probe:
        y = model(wanted(x))
        loss_of(y, 1).backward(retain_graph=True)
        (2 * loss_of(y, 2)).backward()
    first = pulls(lambda m: loss_of(m(wanted(x)), 1))
    second = pulls(lambda m: 2 * loss_of(m(wanted(x)), 2))
    (record,) = probe.recording.layers
    assert record.n_calls == 1
    assert_gradient_true(record.gradient, BN, [first["1", 0], second["1", 0]], record.eps)


def test_accumulating_over_small_batches_is_a_pass_each():
    """Fails if the accumulated .grad is read, and not the gradient of the pass: the second would hold both."""
    (model, pulls), parts = one_norm(), BY_NAME["batch norm"].batches()
    with bnprobe.attach(model) as probe:
        for x in parts:
            (loss_of(model(wanted(x))) / len(parts)).backward()
    expected = [pulls(lambda m, x=x: loss_of(m(wanted(x))) / len(parts))["1", 0] for x in parts]
    (record,) = probe.recording.layers
    assert_gradient_true(record.gradient, BN, expected, record.eps)


def test_one_loss_over_two_forward_passes():
    """Fails if two calls that one backward pass reaches overwrite each other: as with a Siamese network."""
    (model, pulls), (a, b) = one_norm(), (images(2), images(3, seed=6))
    recording = probed(model, lambda: loss_of(model(wanted(a))) + loss_of(model(wanted(b))))
    expected = [pulls(lambda m, x=x: loss_of(m(wanted(x))))["1", 0] for x in (a, b)]
    assert_gradient_true(recording.layers[0].gradient, BN, expected, recording.layers[0].eps)


def test_interleaved_graphs_keep_their_own_vectors():
    """Fails if a pass is measured with the vectors of the last forward pass, not of its own."""
    (model, pulls), x = one_norm(False), images()
    expected = [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]]
    with bnprobe.attach(model) as probe:
        early = loss_of(model(wanted(x)))
        with torch.no_grad():
            changed = {"weight": model[1].weight * 3, "running_var": model[1].running_var * 2}
            model[1].weight = nn.Parameter(changed["weight"])
            model[1].running_var = changed["running_var"]
        late = loss_of(model(wanted(x)))
        late.backward()
        early.backward()
    twin = Cut(one_behind_conv(lambda: nn.BatchNorm2d(C))().double().eval(), ["1"])
    twin.model.load_state_dict(model.state_dict())
    expected.append(twin.pulls(lambda m: loss_of(m(wanted(x))))["1", 0])
    (record,) = probe.recording.layers
    assert_gradient_true(record.gradient, BN, expected, record.eps)
    np.testing.assert_allclose(record.gradient.gap_map, 0, atol=1e-9)


def test_autograd_grad_in_place_of_backward():
    """Fails if only .backward() counts, or parameters that were not asked for are given a gradient."""
    (model, pulls), x = one_norm(), images()
    expected = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    with bnprobe.attach(model) as probe:
        torch.autograd.grad(loss_of(model(wanted(x))), list(model.parameters()))
    assert_gradient_true(probe.recording.layers[0].gradient, BN, [expected], 1e-5)
    with bnprobe.attach(model) as probe:
        torch.autograd.grad(loss_of(model(wanted(x))), [model[1].bias])
    found = probe.recording.layers[0].gradient
    assert (found.n_passes, found.gamma, found.dx, found.importance) == (1, None, None, None)
    np.testing.assert_allclose(found.beta.mean, expected.dbeta, rtol=1e-9)
    assert all(p.grad is None for p in model.parameters())


def test_energy_counts_only_passes_whose_dx_is_known():
    """Fails if a pass without dx adds to what dx is compared with: the norm would seem to take out more."""
    (model, pulls), x = one_norm(), images()
    pull = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
        torch.autograd.grad(loss, [model[1].weight], retain_graph=True)
        loss.backward()
    found = probe.recording.layers[0].gradient
    assert found.n_passes == 2
    np.testing.assert_allclose(found.energy, energy_by_hand(BN, pull, 1e-5), rtol=1e-8)


def test_a_graph_of_the_gradient():
    """Fails if create_graph changes what is recorded, or the second derivative is not the user's own."""
    x = images()

    def run(watch: bool) -> tuple[list[Tensor], Recording | None]:
        model, _ = one_norm()
        probe = bnprobe.attach(model) if watch else None
        leaf = wanted(x)
        (slope,) = torch.autograd.grad(loss_of(model(leaf)), leaf, create_graph=True)
        recording = probe.recording if probe else None
        (slope**2).sum().backward()
        return [slope, *(p.grad for p in model.parameters())], recording

    torch.manual_seed(1)
    plain, _ = run(False)
    torch.manual_seed(1)
    watched, recording = run(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    torch.manual_seed(1)
    _, pulls = one_norm()
    pull = pulls(lambda m: loss_of(m(wanted(x))))["1", 0]
    found = recording.layers[0].gradient
    assert found.n_passes == 1
    oracles.assert_same_moments(found.dx, together(BN, [pull.dx]), 1e-8)
    oracles.assert_same_moments(found.dy, together(BN, [pull.dy]), 1e-8)


# Gradient checkpointing


class TwiceInOnePart(Twice):
    """A norm reached twice in one checkpointed part, and once more in another."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant

    def run(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        how = self.use_reentrant
        return part(x) if how is None else checkpoint(part, x, use_reentrant=how)

    def part(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.bn(x)) * 2 - 1)

    def other(self, x: Tensor) -> Tensor:
        return self.bn(x.tanh() * 3)

    def forward(self, x: Tensor) -> Tensor:
        for part in (self.part, self.other):
            x = self.run(part, x)
        return x


@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
@pytest.mark.parametrize("training", [True, False], ids=_name)
def test_a_norm_twice_in_a_checkpointed_part(use_reentrant, training):
    """Fails if a pass is counted twice or not at all, or the calls are exchanged: they are run again in an
    order of their own."""
    norms = {"bn": replace(BN, calls=3)}
    case = Case("", lambda: TwiceInOnePart(use_reentrant), norms)
    plain = replace(case, build=lambda: TwiceInOnePart(None))
    recording = trained(case, case.model(training), case.batches())
    passes = twins(plain, Cut(plain.model(training), ["bn"]), case.batches())
    assert_gradients_true(recording, case, passes)
    assert [record.n_calls for record in recording.layers] == [3, 3, 3]


@pytest.mark.parametrize("use_reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_a_checkpointed_part_counts_once(use_reentrant):
    """Fails if the norm inside is recorded twice (first run and recomputation), or not at all."""
    case = replace(BY_NAME["checkpointed"], build=lambda: Checkpointed(use_reentrant))
    recording = trained(case, case.model(True), case.batches())
    passes = twins(case, Cut(case.model(True), list(case.norms)), case.batches())
    assert_gradients_true(recording, case, passes)
    assert all(np.nanmax(g.gap_centre) < 1e-10 for g in gradients(recording).values() if g.producer)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # torch's own, of evaluation
def test_checkpointed_evaluation_before_training_is_not_taken_for_it():
    """Fails if calls without a graph, made earlier in evaluation, are matched with later recomputations."""
    case = replace(BY_NAME["checkpointed"], build=lambda: Checkpointed(True))
    model, batches = case.model(False), case.batches()
    with bnprobe.attach(model) as probe:
        with torch.no_grad():
            for x in batches:
                model(x)
        for x in batches:
            loss_of(model(wanted(x))).backward()
    passes = twins(case, Cut(case.model(False), list(case.norms)), batches)
    assert_gradients_true(probe.recording, case, passes)


# Half precision and loss scaling


@pytest.mark.parametrize("training", [True, False], ids=_name)
def test_a_loss_scaler_is_divided_out(training):
    """Fails if gradients stay scaled, are unscaled twice, or energy is not divided by the square."""
    case = BY_NAME["mixed"]
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0)
    plain = trained(case, case.model(training), case.batches())
    model = case.model(training)
    with bnprobe.attach(model, scaler=scaler) as probe:
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            scaler.scale(loss_of(model(wanted(x)))).backward()
    for found, expected in zip(probe.recording.layers, plain.layers, strict=True):
        assert_same_gradients(found.gradient, expected.gradient, rtol=1e-12)
    assert plain.layers[0].gradient.producer is not None


def test_a_scaler_whose_scale_changes_between_passes():
    """Fails if the scale is read once: it grows and halves during training."""
    case = BY_NAME["mixed"]

    class Changing:
        scale = 2.0

        def get_scale(self) -> float:
            return self.scale

    plain = trained(case, case.model(True), case.batches())
    model, scaler = case.model(True), Changing()
    with bnprobe.attach(model, scaler=scaler) as probe:
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            scaler.scale = 2.0 ** (3 * i)
            (loss_of(model(wanted(x))) * scaler.scale).backward()
            scaler.scale = 7.0  # as update() may, after the pass
    for found, expected in zip(probe.recording.layers, plain.layers, strict=True):
        assert_same_gradients(found.gradient, expected.gradient, rtol=1e-12)


def test_a_scaler_that_is_switched_off_scales_nothing():
    """Fails if enabled=False is not respected."""
    model, x = BY_NAME["batch norm"].model(True), images()
    scaler = torch.amp.GradScaler("cpu", init_scale=4096.0, enabled=False)
    with bnprobe.attach(model, scaler=scaler) as probe:
        scaler.scale(loss_of(model(wanted(x)))).backward()
    again = BY_NAME["batch norm"].model(True)
    expected = probed(again, lambda: loss_of(again(wanted(x)))).layers[0].gradient
    assert_same_gradients(probe.recording.layers[0].gradient, expected)


@pytest.mark.parametrize(
    ("dtype", "with_scaler", "noted"),
    [(torch.float16, False, True), (torch.float16, True, False), (torch.bfloat16, False, False)],
    ids=["float16", "float16 with scaler", "bfloat16"],
)
def test_a_note_where_gradients_may_be_scaled(dtype, with_scaler, noted):
    """Fails if scaled gradients are shown without a word, or bfloat16, which needs no scaler, is warned of."""
    model = nn.Sequential(nn.Conv2d(C, C, 1), nn.BatchNorm2d(C))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0) if with_scaler else None
    with bnprobe.attach(model, scaler=scaler) as probe:
        with torch.autocast("cpu", dtype=dtype):
            y = model(images(4, dtype=torch.float32))
        assert not any("scale" in note for note in probe.recording.about.notes), "no gradient yet"
        y.float().sum().backward()
    notes = [note for note in probe.recording.about.notes if "attach(model, scaler=...)" in note]
    assert len(notes) == noted


def test_bfloat16_autocast():
    """Fails if conversions between layers hide the norm's input or parameters, or half precision raises."""
    build = one_behind_conv(lambda: nn.BatchNorm2d(C))
    torch.manual_seed(3)
    model, exact = build(), build()
    exact.load_state_dict(model.state_dict())
    x = images(4, dtype=torch.float32) / 10
    with bnprobe.attach(model) as probe:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
        assert y.dtype == torch.bfloat16
        (y.float() * torch.linspace(-1, 2, W - 2)).sum().backward()
    found = probe.recording.layers[0].gradient
    pull = Cut(exact, ["1"]).pulls(lambda m: (m(x) * torch.linspace(-1, 2, W - 2)).sum())["1", 0]
    rows = BN.rows(pull.dx)
    np.testing.assert_allclose(found.dy.mean, BN.rows(pull.dy).mean((0, 2)), rtol=1e-2)
    np.testing.assert_allclose(np.sqrt(found.dx.var_population), rows.std((0, 2)), rtol=3e-2)
    np.testing.assert_allclose(
        found.gamma.mean, pull.dgamma, rtol=3e-2, atol=3e-2 * np.abs(pull.dgamma).max()
    )
    assert np.nanmax(found.gap_centre) < 1e-2


# Accidents


def poisoned(model: nn.Module, x: Tensor, value: float) -> GradientRecord:
    """One pass in which the gradient at one output, of channel 1, is not finite."""
    with bnprobe.attach(model) as probe:
        y = model(wanted(x))
        dy = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
        dy[0, 1, 2, 3] = value
        y.backward(dy)
    return probe.recording.check_sane().layers[0].gradient


@pytest.mark.parametrize("training", [True, False], ids=_name)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("kind", ["batch", "instance", "group", "layer"])
def test_gradients_that_are_not_finite_are_counted_and_left_out(kind, value, training):
    """Fails if an overflow, as in the first steps of loss scaling, raises in the user's backward pass, spoils
    other channels, or makes a statistic NaN."""
    build, _ = BESIDE[kind]
    x, model = (
        images(),
        learned(one_behind_conv(build)() if kind != "layer" else nn.Sequential(build()), training),
    )
    found = poisoned(model, x, value)
    bad = 3 if kind == "layer" else 1  # layer norm's channels are the columns
    expected = np.zeros(len(found.dy_nonfinite))
    expected[bad] = 1
    np.testing.assert_array_equal(found.dy_nonfinite, expected)
    np.testing.assert_array_equal(found.dy.n, found.dy.n.max() - expected)
    np.testing.assert_array_equal(found.gamma.n, 1 - expected)
    np.testing.assert_array_equal(found.importance.n, 1 - expected)
    assert np.isfinite(found.energy).all()
    for gaps in (found.gap_centre, found.gap_map, *([found.producer.gap] if found.producer else [])):
        assert not np.any(gaps > 1e-6), "an overflow is not a violated identity"


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_a_pass_that_overflowed_does_not_spoil_the_share_of_energy(kind):
    """Fails if a pass adds to the energy what it cannot add to dx: energy_removed must stay that of the others."""
    build, _ = BESIDE[kind]
    model, x = learned(nn.Sequential(build())), images()
    with bnprobe.attach(model) as probe:
        loss_of(model(wanted(x))).backward()
        alone = tables(probe.recording).channels["energy_removed"].to_numpy()
        y = model(wanted(x))
        dy = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
        dy[:, :, 2, :] = torch.inf
        y.backward(dy)
    found = tables(probe.recording).channels["energy_removed"].to_numpy()
    np.testing.assert_allclose(found, alone, rtol=1e-9)


@pytest.mark.parametrize("same_graph", [True, False], ids=["same graph", "new graph"])
def test_an_exception_inside_backward_leaves_later_passes_right(same_graph):
    """Fails if pieces of a pass that broke off are counted, join the next pass, or raise in it."""
    (model, pulls), x = one_norm(), images()
    fails = [True]

    def interrupt(gradient: Tensor) -> None:
        if fails:
            fails.clear()
            raise ValueError("no more memory")

    def forward() -> Tensor:
        leaf = wanted(x) * 1
        leaf.register_hook(interrupt)  # after the norm has been passed
        return loss_of(model(leaf))

    with bnprobe.attach(model) as probe:
        loss = forward()
        with pytest.raises(ValueError, match="no more memory"):
            loss.backward(retain_graph=True)
        (loss if same_graph else forward()).backward()
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]], 1e-5)


def test_a_pass_that_broke_off_is_not_kept():
    """Fails if every failed backward pass leaves its calls behind: a loop with retries would fill the memory."""
    model, x = learned(nn.Sequential(nn.LayerNorm(W))), images()

    def interrupt(gradient: Tensor) -> None:
        raise ValueError("no more memory")

    with bnprobe.attach(model):
        model(x)  # what the probe keeps of the layer itself is there from the first call on
        gc.collect()
        before = n_tensors()
        for _ in range(5):
            leaf = wanted(x) * 1
            leaf.register_hook(interrupt)
            with pytest.raises(ValueError, match="no more memory"):
                loss_of(model(leaf)).backward()
            model.zero_grad()
        del leaf
        gc.collect()
        assert n_tensors() <= before


def n_tensors() -> int:
    # by type: asking some objects for their class makes them warn
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def test_backward_in_another_thread():
    """Fails if what a backward pass tells is bound to the thread of the forward pass."""
    (model, pulls), x = one_norm(), images()
    with bnprobe.attach(model) as probe:
        loss = loss_of(model(wanted(x)))
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, [pulls(lambda m: loss_of(m(wanted(x))))["1", 0]], 1e-5)


@pytest.mark.parametrize("attempt", range(8))
def test_threads_do_not_mix_their_passes(attempt):
    """Fails if gradients of passes that run at the same time are lost or mixed, or follow a .grad that grows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    (model, pulls), x = one_norm(False), images()
    expected = [
        pulls(lambda m, k=k: k * loss_of(m(wanted(x))))["1", 0] for k in range(1, 5) for _ in range(5)
    ]
    start = threading.Barrier(4)

    def work(k: int) -> None:
        start.wait()
        for _ in range(5):
            (k * loss_of(model(wanted(x)))).backward()

    try:
        with bnprobe.attach(model) as probe:
            threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    found = probe.recording.layers[0].gradient
    assert_gradient_true(found, BN, expected, 1e-5)


# Nothing is left behind


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=_name)
def test_the_users_tensors_are_as_without_the_probe(case: Case, training: bool):
    """Fails if a bit of an output, a parameter's .grad or the input's .grad changes, or a tensor carries a hook."""

    def run(watch: bool) -> list[Tensor]:
        model = case.model(training)
        probe = bnprobe.attach(model) if watch else None
        result = []
        for i, x in enumerate(case.batches()):
            torch.manual_seed(i)
            leaf = wanted(x)
            output = case.call(model, leaf)
            loss = loss_of(output)
            loss.backward()
            y = output["features"] if isinstance(output, dict) else output
            for tensor in (leaf, y, loss, *model.parameters()):
                assert not tensor._backward_hooks
                assert not getattr(tensor, "_post_accumulate_grad_hooks", None)
            result += [y.detach(), leaf.grad]
        if probe:
            probe.detach()
            assert any(gradients(probe.recording).values())
        return [
            *result,
            *(p.grad for p in model.parameters() if p.grad is not None),
            *model.state_dict().values(),
        ]

    plain, watched = run(False), run(True)
    assert len(plain) == len(watched)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


@pytest.mark.parametrize("name", ["mixed", "checkpointed"])
def test_no_graph_outlives_its_pass(name):
    """Fails if the probe holds a node, a gradient or an activation after backward, or grows with the steps."""
    case = BY_NAME[name]
    model, (x, *_) = case.model(True), case.batches()
    counts = []
    with bnprobe.attach(model) as probe:
        for step in range(50):
            leaf = wanted(x)
            output = case.call(model, leaf)
            watched = [weakref.ref(leaf), weakref.ref(output), tied_to(output.grad_fn)]
            loss_of(output).backward()
            model.zero_grad()
            del leaf, output
            assert [ref() for ref in watched] == [None] * 3, "without the help of the garbage collector"
            if step in (4, 49):
                gc.collect()
                counts.append(n_tensors())
        size = sum(a.nbytes for a in arrays_of(probe.recording))
    assert counts[0] == counts[1]
    with bnprobe.attach(model) as probe:
        loss_of(case.call(model, wanted(x))).backward()
    assert sum(a.nbytes for a in arrays_of(probe.recording)) == size


class Tied:
    """Lives as long as the node that it is hung on; nodes themselves take no weak references."""

    def __call__(self, *gradients: Any) -> None: ...


def tied_to(node: Any) -> weakref.ref[Tied]:
    hung = Tied()
    node.register_hook(hung)
    return weakref.ref(hung)


def arrays_of(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple):
        return [a for item in value for a in arrays_of(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [a for field in fields(value) for a in arrays_of(getattr(value, field.name))]
    return []


def test_a_graph_that_is_never_run_goes_with_its_output():
    """Fails if a forward pass without a backward pass keeps its graph: hooks on nodes must not hold the nodes."""
    model = one_norm()[0]
    with bnprobe.attach(model):
        y = model(wanted(images()))
        behind = y.grad_fn.next_functions[0][0]
        assert "Convolution" in behind.name(), "its weights feed the norm, so it is hooked too"
        gone = [tied_to(y.grad_fn), tied_to(behind), weakref.ref(y)]
        del y, behind
        assert [ref() for ref in gone] == [None] * 3


# The weights before the norm


FEEDERS = {
    "convolution": lambda: nn.Conv2d(C, 4, 3),
    "without bias": lambda: nn.Conv2d(C, 4, 3, bias=False),
    "grouped": lambda: nn.Conv2d(C, 6, 3, groups=3),
    "strided": lambda: nn.Conv2d(C, 4, 3, stride=2, padding=1),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 4)),
    "linear without bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, 4, bias=False)),
}


def fed(name: str, training: bool) -> tuple[nn.Module, nn.Module]:
    """A norm behind something with weights, and these."""
    torch.manual_seed(3)
    producer = FEEDERS[name]()
    n = 6 if name == "grouped" else 4
    norm = nn.BatchNorm1d(n) if "linear" in name else nn.BatchNorm2d(n)
    model = learned(nn.Sequential(producer, norm), training)
    return model, producer[1] if "linear" in name else producer


@pytest.mark.parametrize("training", [True, False], ids=_name)
@pytest.mark.parametrize("name", FEEDERS)
def test_the_weights_before_the_norm(name, training):
    """Fails if lengths or angles are of other rows (a linear layer's gradient lies on its side), or not per pass."""
    (model, layer), batches = fed(name, training), BY_NAME["batch norm"].batches((5, 6, 7))
    (record,) = probed(model, *(lambda x=x: loss_of(model(x)) for x in batches)).layers
    w = layer.weight.detach().flatten(1).numpy()
    lengths, angles = [], []
    for x in batches:
        (g,) = torch.autograd.grad(loss_of(model(x)), layer.weight)
        g = g.flatten(1).numpy()
        lengths.append([np.linalg.norm(row) for row in g])
        across = [a - b * (a @ b) / (b @ b) for a, b in zip(g, w, strict=True)]
        angles.append([np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(across, w, strict=True)])
    producer = record.gradient.producer
    oracles.assert_same_moments(producer.grad_norm, oracles.moments(np.array(lengths)), 1e-8)
    oracles.assert_same_moments(producer.angle, oracles.moments(np.array(angles)), 1e-6)
    np.testing.assert_allclose(producer.norm.mean, np.linalg.norm(w, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(producer.norm.n, 3)


@pytest.mark.parametrize("cast", [False, True], ids=["as it is", "autocast"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", ["tokens", "images"])
def test_the_weights_behind_rows_and_casts(name, bias, cast):
    """Fails if weights are lost where a linear layer works on tokens, or autocast makes them smaller."""
    torch.manual_seed(3)
    layer = nn.Linear(6, 4, bias=bias) if name == "tokens" else nn.Conv2d(3, 4, 3, bias=bias)
    model = nn.Sequential(layer, nn.LayerNorm(4) if name == "tokens" else nn.BatchNorm2d(4))
    x = torch.randn(5, 7, 6) if name == "tokens" else torch.randn(5, 3, 8, 8)

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            return loss_of(model(x).float())

    (record,) = probed(model, loss).layers
    (g,) = torch.autograd.grad(loss(), layer.weight)
    producer = record.gradient.producer
    np.testing.assert_allclose(producer.grad_norm.mean, g.flatten(1).norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(producer.norm.mean, layer.weight.detach().flatten(1).norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize("training", [True, False], ids=_name)
@pytest.mark.parametrize("name", FEEDERS)
def test_identities_hold_for_plain_networks(name, training):
    """Fails if the identity is that of the other mode, or leaves out eps, the mean or the bias.

    eps is as large as the variance, so that a term with it shows.
    """
    model, _ = fed(name, training)
    model[1].eps = 0.5
    x = BY_NAME["batch norm"].batches((9,))[0]
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    gradient = record.gradient
    np.testing.assert_allclose(gradient.producer.gap, 0, atol=1e-9)
    kept, other = (gradient.gap_centre, gradient.gap_map)[:: 1 if training else -1]
    np.testing.assert_allclose(kept, 0, atol=1e-9)
    assert np.isnan(other).all()


@pytest.mark.parametrize("training", [True, False], ids=_name)
def test_norms_without_such_an_identity_claim_none(training):
    """Fails if a layer norm is held to what holds for a batch norm."""
    for norm in (nn.GroupNorm(1, C), nn.LayerNorm(W - 2), nn.LayerNorm((C, H - 2, W - 2))):
        model = learned(one_behind_conv(lambda norm=norm: norm)(), training)
        (record,) = probed(model, lambda m=model: loss_of(m(wanted(images())))).layers
        assert np.isnan(record.gradient.gap_centre).all()
        assert np.isnan(record.gradient.gap_map).all()
        assert record.gradient.producer is None or np.isnan(record.gradient.producer.gap).all()


def test_instance_norm_takes_out_the_sum():
    """Fails if the identity of the sum is asked of batch norms only."""
    model = learned(nn.Sequential(nn.InstanceNorm2d(C, affine=True)))
    (record,) = probed(model, lambda: loss_of(model(wanted(images())))).layers
    np.testing.assert_allclose(record.gradient.gap_centre, 0, atol=1e-10)


@pytest.mark.parametrize("how", ["transposed", "other axis", "activation", "frozen", "frozen bias"])
def test_what_does_not_feed_the_norm(how):
    """Fails if weights are named that are not the norm's, are not trained, or whose bias is out of reach."""
    producers = {
        "transposed": nn.ConvTranspose2d(C, C, 3),
        "other axis": nn.Conv2d(C, C, (1, 1)),
        "activation": nn.Sequential(nn.Conv2d(C, C, 1), nn.ReLU()),
        "frozen": nn.Conv2d(C, C, 1),
        "frozen bias": nn.Conv2d(C, C, 1),
    }
    producer = producers[how]
    if "frozen" in how:
        (producer.bias if "bias" in how else producer.weight).requires_grad_(False)
    norm = nn.LayerNorm(W) if how == "other axis" else nn.BatchNorm2d(C)
    model = learned(nn.Sequential(producer, norm))
    (record,) = probed(model, lambda: loss_of(model(wanted(images())))).layers
    assert record.gradient.dx is not None
    assert record.gradient.producer is None


class Altered(torch.autograd.Function):
    """Passes values, and alters gradients on their way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, shift: float) -> Tensor:
        ctx.scale, ctx.shift = scale, shift
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.scale + ctx.shift * gradient.abs().amax(), None, None


class AlteredNorm(nn.BatchNorm2d):
    """A batch norm that hands back another gradient than its own."""

    scale, shift = 1.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(Altered.apply(x, self.scale, self.shift))


@pytest.mark.parametrize(
    ("training", "scale", "shift", "broken"),
    [
        (True, 1.0, 0.3, "gap_centre"),
        (False, 1.5, 0.0, "gap_map"),
        (False, 1.0, 0.3, "gap_map"),
        (False, -1.0, 0.0, "gap_map"),
    ],
)
def test_a_norm_that_alters_its_gradient_is_seen(training, scale, shift, broken):
    """Fails if a gap stays at 0 whatever the gradient is."""
    model = learned(nn.Sequential(nn.Conv2d(C, C, 1), AlteredNorm(C)), training)
    assert (
        np.nanmax(getattr(probed(model, lambda: loss_of(model(images()))).layers[0].gradient, broken)) < 1e-9
    )
    model[1].scale, model[1].shift = scale, shift
    found = probed(model, lambda: loss_of(model(images()))).layers[0].gradient
    assert np.nanmin(getattr(found, broken)) > 1e-2


@pytest.mark.parametrize("training", [True, False], ids=_name)
def test_weights_that_also_feed_something_else_are_seen(training):
    """Fails if gap_weight cannot tell that another part of the network pulls on the weights."""
    torch.manual_seed(3)
    model = learned(Beside(lambda: nn.BatchNorm2d(C), feeds=True), training)
    (record,) = probed(model, lambda: loss_of(model(images()))).layers
    assert np.nanmin(record.gradient.producer.gap) > 1e-2
    kept = record.gradient.gap_centre if training else record.gradient.gap_map
    np.testing.assert_allclose(kept, 0, atol=1e-9)


@pytest.mark.parametrize("name", ["batch norm", "instance norm with vectors"])
def test_a_gradient_that_the_norm_takes_out_violates_nothing(name):
    """Fails if rounding is divided by rounding: the mean of a normalized output pulls on nothing before it."""
    build = {"batch norm": nn.BatchNorm2d, "instance norm with vectors": nn.InstanceNorm2d}[name]
    for dtype in (torch.float64, torch.float32):
        model = one_behind_conv(lambda: build(C, affine=True))().to(dtype)
        x = images(4, dtype=dtype)
        recording = probed(model, lambda m=model, x=x: m(x).mean())
        gradient = recording.layers[0].gradient
        assert not np.any(gradient.gap_centre > 1e-3)
        assert not np.any(gradient.producer.gap > 1e-3)
        found = bnprobe.report(recording).findings
        assert "identity-violated" not in set(found["rule"])


def test_the_equality_of_the_energy():
    """Fails if energy or dx is off by a factor.

    sum dx^2 = g^2/(v+eps) (sum dy^2 - m mean(dy)^2 - (2-q) m mean(dy xhat)^2), q = v/(v+eps); the terms on
    the right are recorded as dy, dbeta and dgamma. Source: Santurkar et al. 2018, arXiv:1805.11604, theorem 4.1,
    with eps kept.
    """
    model, x = learned(nn.Sequential(nn.BatchNorm2d(C, eps=0.5))), images(5)
    (record,) = probed(model, lambda: loss_of(model(wanted(x)))).layers
    g, m = record.gradient, record.gradient.dy.n
    v = record.pre.var_population
    q = v / (v + 0.5)
    dy2 = g.dy.m2 + m * g.dy.mean**2
    right = record.gamma**2 / (v + 0.5) * (dy2 - g.beta.mean**2 / m - (2 - q) * g.gamma.mean**2 / m)
    np.testing.assert_allclose(g.dx.m2 + m * g.dx.mean**2, right, rtol=1e-9)
    np.testing.assert_allclose(g.energy, record.gamma**2 / (v + 0.5) * dy2, rtol=1e-9)
    removed = tables(Recording(About("net"), (record,))).channels
    np.testing.assert_allclose(removed["energy_removed"], 1 - right / g.energy, rtol=1e-9, atol=1e-12)


# Parts and wholes


def parts_of(case: Case, training: bool = False) -> list[Recording]:
    """A recording of each of four batches."""
    model = case.model(training)
    return [trained(case, model, [x]) for x in case.batches((2, 3, 4, 5))]


@pytest.mark.parametrize("name", ["mixed", "twice", "instance norm with vectors", "RMS norm by its looks"])
def test_parts_saved_loaded_and_merged_in_any_order_are_the_whole(name, tmp_path):
    """Fails if a field of a gradient is lost on disk, or merged by another rule than it adds up by."""
    case = replace(BY_NAME[name], build=_without_dropout(BY_NAME[name]))
    parts = [bnprobe.load(part.save(tmp_path / f"{i}.bnp")) for i, part in enumerate(parts_of(case))]
    whole = trained(case, case.model(False), case.batches((2, 3, 4, 5)))
    for order in list(permutations(parts))[::5]:
        merged = reduce(Recording.merge, order).check_sane()
        by_site = {record.site: record for record in merged.layers}
        assert len(by_site) == len(whole.layers)
        for record in whole.layers:
            assert record.gradient.n_passes == 4
            assert_same_gradients(by_site[record.site].gradient, record.gradient)


def _without_dropout(case: Case) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = case.build()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    return build


def test_a_part_without_gradients_keeps_the_others():
    """Fails if a shard that was only run forward deletes what backward passes of the other told."""
    case = BY_NAME["mixed"]
    with_, without = parts_of(case)[0], bnprobe.record(case.model(), case.batches())
    for merged in (with_.merge(without), without.merge(with_)):
        for record in merged.layers:
            (expected,) = (r.gradient for r in with_.layers if r.layer == record.layer)
            assert_same_gradients(record.gradient, expected)
            assert record.n_calls == 4


def test_a_part_without_some_gradients_keeps_the_others():
    """Fails if dx, gamma or the feeder of one part is dropped because the other part had none."""
    case = BY_NAME["mixed"]
    full = parts_of(case)[0]
    model = case.model()
    for p in (model.bn.weight, model.conv.weight):
        p.requires_grad_(False)
    lacking = probed(model, lambda: loss_of(model(case.batches()[0])))
    for merged in (full.merge(lacking), lacking.merge(full)):
        (mine,) = (r.gradient for r in full.layers if r.layer == "bn")
        (both,) = (r.gradient for r in merged.layers if r.layer == "bn")
        assert both.n_passes == 2
        for name in ("dx", "gamma", "importance"):
            assert_same(getattr(both, name), getattr(mine, name), name, 1e-12)
        assert_same(both.producer.norm, mine.producer.norm, "w", 1e-12)
        np.testing.assert_array_equal(both.dy.n, 2 * mine.dy.n)


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> Path:
    """The file with another content, and digests that agree with it."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name).copy() for name in file.keys()}  # noqa: SIM118
    content = json.loads(metadata["recording"])
    change(content, arrays)
    metadata["recording"] = json.dumps(content)
    metadata["digest"] = sha256(metadata["recording"].encode()).hexdigest()[:32]
    metadata["digests"] = json.dumps({n: sha256(a.tobytes()).hexdigest()[:32] for n, a in arrays.items()})
    path.write_bytes(pack(arrays, metadata=metadata))
    return path


def test_the_largest_gap_of_the_parts_stays():
    """Fails if merging hides a violated identity behind a part where it holds, or behind NaN."""
    found = []
    for altered in (1.0, 1.5):
        torch.manual_seed(3)
        model = learned(nn.Sequential(nn.Conv2d(C, C, 1), AlteredNorm(C)), False)
        model[1].scale = altered
        found.append(probed(model, lambda m=model: loss_of(m(images()))))
    for merged in (found[0].merge(found[1]), found[1].merge(found[0])):
        both, bad = merged.layers[0].gradient, found[1].layers[0].gradient
        np.testing.assert_array_equal(both.gap_map, bad.gap_map)
        np.testing.assert_array_equal(both.producer.gap, bad.producer.gap)
        assert np.nanmin(both.gap_map) > 1e-2


def test_files_from_before_gradients_load(tmp_path):
    """Fails if a recording that was saved without the field is refused, or gets one."""
    case = BY_NAME["mixed"]
    path = bnprobe.record(case.model(), case.batches()).save(tmp_path / "old.bnp")

    def strip(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        for layer in content["layers"]:
            assert layer.pop("gradient") is None

    old = bnprobe.load(rewritten(path, strip))
    assert {record.gradient for record in old.layers} == {None}
    assert len(tables(old).layers) == 4
    new = parts_of(case)[0]
    assert all(g is not None for g in gradients(old.merge(new)).values())


@pytest.mark.insane
@pytest.mark.parametrize("field", ["dy/m2", "dx/m4", "gamma/low", "producer/angle/m2"])
def test_gradients_that_no_sample_can_have_are_refused(field, tmp_path):
    """Fails if the statistics of gradients are believed unseen, unlike those of activations."""
    case = BY_NAME["mixed"]
    path = trained(case, case.model(True), case.batches()).save(tmp_path / "odd.bnp")

    def spoil(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        (name,) = (n for n in arrays if n.endswith(f"layers/0/gradient/{field}"))
        arrays[name][0] = 1e9 if "low" in field else -1.0

    with pytest.raises(BadRecordingFile, match="Record it again"):
        bnprobe.load(rewritten(path, spoil))


@pytest.mark.parametrize("field", ["energy", "gap_centre", "dy_nonfinite"])
def test_gradients_of_another_shape_are_refused(field, tmp_path):
    """Fails if a vector of the wrong length is found out by a table, far from its place."""
    case = BY_NAME["mixed"]
    path = trained(case, case.model(True), case.batches()).save(tmp_path / "odd.bnp")

    def spoil(content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        (name,) = (n for n in arrays if n.endswith(f"layers/0/gradient/{field}"))
        arrays[name] = arrays[name][:-1].copy()

    with pytest.raises(BadRecordingFile, match=r"expected shape \(6,\)"):
        bnprobe.load(rewritten(path, spoil))


# A real network


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")
@pytest.mark.parametrize("training", [True, False], ids=_name)
def test_identities_hold_on_a_trained_network(training):
    """Fails if the identities, which are exact, are off by more than float32 explains on real weights and images."""
    spec = importlib.util.spec_from_file_location("cifar_resnet", ROOT / "scripts" / "cifar_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.resnet20().train(training)
    model.load_state_dict(models.load_checkpoint(DATA / "cifar_resnet20.th"), strict=False)
    source = find_images(DATA / "cifar10_jpeg" / "test")
    preprocess = models.CropAndScale(size=32, resize=32)
    labelled = (
        (torch.stack(batch.images), torch.tensor(batch.labels))
        for batch in source.batches(preprocess, 64, 128)
    )
    recording = bnprobe.record(model, labelled, F.cross_entropy)
    layers = tables(recording).layers
    assert len(layers) == 19
    assert (layers["n_backward"] == 2).all()
    kept, other = ("gap_centre", "gap_map")[:: 1 if training else -1]
    assert layers[other].isna().all()
    # the stem's input is the image, which wants no gradient: its dx is still there, behind the convolution
    assert layers[kept].notna().all()
    assert layers["gap_weight"].notna().all()
    assert layers[kept].max() < 1e-4
    assert layers["gap_weight"].max() < 1e-4
    assert layers["energy_removed_layer"].between(-1e-6, 1).all()
    if not training:
        np.testing.assert_allclose(layers["energy_removed_layer"], 0, atol=1e-5)
    else:
        assert layers["energy_removed_layer"].max() > 0.05
