"""What one backward pass shows of a norm: the weights before it, laws of its gradients, and values that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import oracles
from support.gradients import loss_of
from support.models import BY_NAME, C, H, W
from support.runs import case_and_mode
from torch import Tensor, nn

import bnprobe
from bnprobe.measures import tables
from bnprobe.recording import About, GradientRecord, Recording
from probe.backward.runs import (
    BESIDE,
    FEEDERS,
    AlteredNorm,
    Beside,
    fed,
    images,
    learned,
    one_behind_conv,
    probed,
    wanted,
)


def poisoned(model: nn.Module, x: Tensor, value: float) -> GradientRecord:
    """One pass in which the gradient at one output, of channel 1, is not finite."""
    with bnprobe.attach(model) as probe:
        y = model(wanted(x))
        dy = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).reshape(y.shape)
        dy[0, 1, 2, 3] = value
        y.backward(dy)
    return probe.recording.check_sane().layers[0].gradient


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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


@pytest.mark.parametrize("training", [True, False], ids=case_and_mode)
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
