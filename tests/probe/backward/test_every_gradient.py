"""Every gradient of a recording, against graphs cut at every norm and against the formulas by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import oracles
from support.gradients import (
    Cut,
    assert_gradient_true,
    assert_gradients_true,
    dgamma_dbeta_by_hand,
    dx_by_hand,
    loss_of,
    together,
)
from support.models import BN, C, Case, L, Norm, W, one
from support.runs import BOTH_MODES, case_and_mode
from torch import Tensor, nn

import bnprobe
from probe.backward.runs import (
    FUSED,
    LAYER,
    CastingRMSNorm,
    images,
    learned,
    one_behind_conv,
    probed,
    trained,
    twins,
    wanted,
)


@pytest.mark.parametrize(("case", "training"), BOTH_MODES, ids=case_and_mode)
def test_every_gradient_agrees_with_a_cut_graph(case: Case, training: bool):
    """Fails if any number of a gradient record is not what autograd gives the norm alone, in float64.

    Moments of dy and dx, energy, and over passes dgamma, dbeta and |gamma dgamma + beta dbeta|.
    """
    batches = case.batches()
    recording = trained(case, case.model(training), batches)
    assert_gradients_true(recording, case, twins(case, Cut(case.model(training), list(case.norms)), batches))


@pytest.mark.parametrize(
    ("case", "training"), [pair for pair in BOTH_MODES if pair[0].name != FUSED], ids=case_and_mode
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
