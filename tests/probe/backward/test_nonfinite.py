"""Gradients that are not finite: counted per channel and pass, at the norm where they arrive or arise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe


class LayerNorm(nn.Module):
    """A layer norm with eps inside the root, or beside it, where a row of equal values has no derivative."""

    def __init__(self, inside: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))
        self.inside, self.eps = inside, eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        var = centred.pow(2).mean(-1, keepdim=True)
        divisor = (var + self.eps).sqrt() if self.inside else var.sqrt() + self.eps
        return centred / divisor * self.weight + self.bias


class Padded(nn.Module):
    """Two norms over tokens of which the last is padding; a mask keeps it out of the output."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        self.norm1, self.fc, self.norm2 = LayerNorm(inside), nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, :-1], x[:, -1:] * 0], 1)
        return self.norm2(self.fc(self.norm1(x)))[:, :-1].sum((1, 2))


class Root(nn.Module):
    """A root after a norm whose derivative is infinite, and times 0 NaN, where `poison` makes its argument 0."""

    poison = True

    def forward(self, x: Tensor) -> Tensor:
        distance = (x - x[:1] * self.poison) ** 2
        return x + (distance.sum(1, keepdim=True) + 1.0 * (not self.poison)).sqrt()


def recorded(model: nn.Module, batches: list[Tensor], before: Callable[[int], None] = lambda i: None):
    torch.manual_seed(0)
    with bnprobe.attach(model) as probe:
        for i, x in enumerate(batches):
            before(i)
            model(x.clone().requires_grad_()).pow(2).sum().backward()
    return probe.recording


def of(recording: bnprobe.Recording, rule: str = "gradient-not-finite"):
    findings = bnprobe.report(recording).findings
    return list(findings[findings["rule"] == rule].itertuples())


BATCHES = [torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(i)) for i in range(3)]


def test_a_gradient_that_arises_in_a_norm_is_counted_at_its_input():
    """Fails if only dL/dy is watched: there the gradient is finite, and dL/dx is NaN in every padded token."""
    recording = recorded(Padded(inside=False), BATCHES)
    first, last = (record.gradient.nonfinite for record in recording.layers)
    assert last is None
    assert (first.n_arriving, first.n_arising, first.n_scaled) == (0, 3, 0)
    np.testing.assert_array_equal(first.dx_values, 3 * 5)  # passes x padded tokens
    np.testing.assert_array_equal(first.dx_passes, 3)
    np.testing.assert_array_equal(first.dy_passes, 0)
    (row,) = of(recording)
    assert (row.severity, row.layer, row.channels) == ("critical", "norm1", tuple(range(6)))
    assert row.says.startswith("Gradients become NaN or infinite in this norm")
    assert row.because == "in 3 of 3 backward passes: dL/dx in 6 of 6 channels."
    assert "eps inside the root" in row.do


def test_a_norm_with_eps_inside_the_root_is_sound():
    """Fails if padding itself is taken for a fault of the gradient."""
    recording = recorded(Padded(inside=True), BATCHES)
    assert not of(recording)
    layers = bnprobe.report(recording).layers
    assert (layers["grad_in"] > 0).all()
    assert not layers["n_backward_nonfinite"].any()


def between(poisoned: set[int]) -> tuple[nn.Sequential, Callable[[int], None]]:
    model = nn.Sequential(nn.LayerNorm(6), nn.LayerNorm(6), Root(), nn.LayerNorm(6))
    return model, lambda i: setattr(model[2], "poison", i in poisoned)


def test_a_gradient_that_arises_between_norms_is_told_at_the_first_it_reaches():
    """Fails if the order is read forwards, if every norm is told, or if a norm that is sound is named as the source."""
    recording = recorded(*(lambda m, b: (m, BATCHES, b))(*between({1})))
    first, second, last = (record.gradient.nonfinite for record in recording.layers)
    assert last is None
    for found in (first, second):
        assert (found.n_arriving, found.n_arising) == (1, 0)
    (row,) = of(recording)
    assert row.layer == "1"
    assert "arrive at this norm" in row.says
    assert row.because.startswith("in 1 of 3 backward passes: dL/dy in 6, dL/dx in 6")
    assert row.because.endswith("; 1 previous norm received such gradients.")
    assert "between it and layer 3, whose gradients are finite" in row.do


def test_lengths_of_gradients_are_not_shown_where_passes_were_not_finite():
    """Fails if the table shows a sound length made of the passes that are left."""
    layers = bnprobe.report(recorded(*(lambda m, b: (m, BATCHES, b))(*between({1})))).layers
    assert layers["n_backward"].tolist() == [3, 3, 3]
    assert layers["n_backward_nonfinite"].tolist() == [1, 1, 0]
    for name in ("grad_out", "grad_in", "grad_ratio", "energy_removed_layer"):
        assert layers[name].isna().tolist() == [True, True, False], name


def test_counts_add_up_and_survive_a_file(tmp_path: Path):
    """Fails if a merge keeps one part's counts, or a file loses them."""
    bad, good = (recorded(*(lambda m, b: (m, BATCHES, b))(*between(which))) for which in ({0, 2}, set()))
    path = tmp_path / "both.bnp"
    bad.merge(good).merge(bad).save(path)
    found = bnprobe.load(path).layers[1].gradient
    assert (found.n_passes, found.nonfinite.n_arriving) == (9, 4)
    np.testing.assert_array_equal(found.nonfinite.dy_passes, 4)
    assert good.layers[1].gradient.nonfinite is None


def test_an_overflow_of_parameters_alone_arises_in_the_norm():
    """Fails if only the gradients of activations are looked at."""

    class MaskedLayerNorm(LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            root = (self.weight - torch.tensor([0.0, 0, 1, 0, 0, 0])).sqrt()
            gamma = torch.where(
                torch.full((6,), True), self.weight, root
            )  # of channel 2, root is 0 and has no derivative
            return nn.functional.layer_norm(x, (6,)) * gamma + self.bias

    recording = recorded(nn.Sequential(MaskedLayerNorm(True)), BATCHES[:2])
    found = recording.layers[0].gradient.nonfinite
    np.testing.assert_array_equal(found.gamma_passes, [0, 0, 2, 0, 0, 0])
    assert (found.n_arriving, found.n_arising) == (0, 2)
    (row,) = of(recording)
    assert row.channels == (2,)


class Scaler:
    """A loss scale that halves, and whose first passes overflow."""

    scale = 2.0**13

    def get_scale(self) -> float:
        return self.scale


@pytest.mark.parametrize("n_overflowing", [1, 3])
def test_passes_that_a_loss_scaler_skips_are_a_note_and_in_no_other_number(n_overflowing: int):
    """Fails if the first steps of loss scaling count as a fault, or what is left of them enters the lengths;
    unless no pass is left."""
    scaler, model = Scaler(), nn.Sequential(nn.LayerNorm(6))
    sound = [i for i in range(3) if i >= n_overflowing]
    plain = nn.Sequential(nn.LayerNorm(6))
    alone = recorded(plain, [BATCHES[i] for i in sound]) if sound else None
    with bnprobe.attach(model, scaler=scaler) as probe:
        for i, x in enumerate(BATCHES):
            y = model(x.clone().requires_grad_())
            dy = 2 * y.detach() * scaler.scale
            if i < n_overflowing:
                dy[0, 0, 1] = torch.inf
            y.backward(dy)
    recording = probe.recording
    (row,) = of(recording)
    layers = bnprobe.report(recording).layers
    assert layers["n_backward"].tolist() == [3]
    assert layers["n_backward_scaled"].tolist() == [n_overflowing]
    if alone is None:
        assert row.severity == "critical"
        assert np.isnan(layers["grad_out"]).all()
        return
    assert row.severity == "info"
    assert "loss scale" in row.says
    expected = bnprobe.report(alone).layers
    np.testing.assert_allclose(layers["grad_out"], expected["grad_out"], rtol=1e-6)
    np.testing.assert_allclose(layers["grad_in"], expected["grad_in"], rtol=1e-6)
