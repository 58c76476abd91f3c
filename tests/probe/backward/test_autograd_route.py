"""The edges along which a gradient enters and leaves a norm, whatever goes around it or is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.gradients import Cut, assert_gradient_true, assert_gradients_true, assert_same_gradients, loss_of
from support.models import BN, BY_NAME, C, Case, H, L, W, learn
from support.runs import case_and_mode
from torch import Tensor, nn

from bnprobe.measures import tables
from probe.backward.runs import (
    BESIDE,
    LAYER,
    Beside,
    gradients,
    images,
    learned,
    probed,
    trained,
    twins,
    wanted,
)


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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
