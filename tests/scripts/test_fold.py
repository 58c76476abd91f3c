"""Folding: the folded layer computes the same, the check sees what does not, and nothing of the model changes."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.ops import FrozenBatchNorm2d

from bnprobe.errors import NotDefined
from scripts.article.fold import fold_check, folded_layer

PAIRS = {
    "conv1d": (nn.Conv1d(3, 4, 3, padding=1), nn.BatchNorm1d(4), (2, 3, 7)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), (2, 3, 5, 7)),
    "conv3d": (nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), (2, 2, 3, 4, 5)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), (2, 4, 5, 6)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 6)),
    "linear": (nn.Linear(5, 3), nn.BatchNorm1d(3), (7, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), nn.BatchNorm2d(6), (2, 4, 3, 5)),
    "no affine": (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), (2, 3, 5, 7)),
}


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """A layer and its norm in training mode, with statistics, both signs of gamma, and an input."""
    layer, norm, shape = PAIRS[request.param]
    layer, norm = copy.deepcopy(layer), copy.deepcopy(norm)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.01, 3)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return layer, norm, torch.randn(shape)


def test_a_folded_layer_computes_what_both_did(pair):
    """Fails if a group, the bias, eps or the side of a transposed weight is mistaken."""
    layer, norm, x = (part.double() for part in pair)
    expected = norm.eval()(layer(x))
    torch.testing.assert_close(folded_layer(layer, norm)(x), expected, rtol=1e-12, atol=1e-12)
    assert fold_check(layer, norm, x) < 1e-13


def test_the_check_is_relative_and_in_the_layers_own_precision(pair):
    """Fails if the difference is absolute, or computed in float64 where the model runs in float32."""
    layer, norm, x = pair
    gap = fold_check(layer, norm, x)
    assert 0 < gap < 1e-5
    assert folded_layer(layer, norm).weight.dtype == torch.float32
    if norm.affine:
        norm.weight.data *= 1024.0
        norm.bias.data *= 1024.0  # a power of two moves no rounding
        assert fold_check(layer, norm, x) == pytest.approx(gap, rel=0.5)


def test_neither_module_changes(pair):
    """Fails if checking moves running statistics, a mode, or a weight: the norm is in training mode here."""
    layer, norm, x = pair
    before = [copy.deepcopy(module.state_dict()) for module in (layer, norm)]
    fold_check(layer, norm, x)
    for module, state in zip((layer, norm), before, strict=True):
        assert module.training
        for name, value in module.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_a_layer_that_does_more_than_its_weights_is_seen():
    """Fails if the check compares the formula with itself: this convolution clips its output."""

    class Clipped(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).clamp(max=0.1)

    norm, x = nn.BatchNorm2d(4), torch.randn(2, 3, 5, 7)
    norm.running_var.fill_(0.1)
    clipped, plain = Clipped(3, 4, 3), nn.Conv2d(3, 4, 3)
    assert fold_check(plain, norm, x) < 1e-5
    assert fold_check(clipped, norm, x) > 0.01


def test_hooks_are_neither_copied_nor_lost():
    """Fails if folding copies what a hook holds, here a lock, or leaves the layer without its hooks."""
    layer, norm, calls = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), []
    lock = threading.Lock()
    layer.register_forward_hook(lambda *_: calls.append(lock.locked()))
    new = folded_layer(layer, norm)
    new(torch.randn(1, 3, 4, 4))
    assert not calls
    layer(torch.randn(1, 3, 4, 4))
    assert calls == [False]
    assert new.weight is not layer.weight
    assert layer.training


def test_a_frozen_norm_folds_too():
    """Fails if only torch's own classes are known."""
    norm = FrozenBatchNorm2d(4)
    norm.running_var.uniform_(0.1, 2)
    assert fold_check(nn.Conv2d(3, 4, 3), norm, torch.randn(2, 3, 5, 7)) < 1e-5


@pytest.mark.parametrize(
    ("layer", "norm", "advice"),
    [
        (weight_norm(nn.Linear(3, 3)), nn.BatchNorm1d(3), "Fold into one of these"),
        (nn.ReLU(), nn.BatchNorm2d(3), "Fold into one of these"),
        (nn.Conv2d(3, 3, 1), nn.LayerNorm(3), "Fold norms that do"),
        (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), "Fold norms that do"),
    ],
)
def test_what_cannot_be_folded_is_refused(layer, norm, advice):
    """Fails if something is folded with statistics that are not there."""
    with pytest.raises(NotDefined, match=advice):
        fold_check(layer, norm, torch.randn(2, 3, 4, 4))


def test_nonfinite_outputs_are_not_called_equal():
    """Fails if NaN - NaN passes for no difference."""
    with pytest.raises(NotDefined, match="another input"):
        fold_check(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), torch.full((1, 3, 2, 2), float("nan")))
