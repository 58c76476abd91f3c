"""Equally likely values of a skip connection: moments of sums, norms and activations by formulas of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.graph.geometry import Source
from bnprobe.graph.residual import N_POINTS, Skips, _of_norm, activated, added

GAMMA, BETA = np.array([0.5, -2.0, 0.0]), np.array([1.0, 0.0, -3.0])


def test_a_norm_hands_on_its_offset_and_scale() -> None:
    """Fails if the points do not have mean β and deviation |γ| exactly, or stand in another order than that of values."""
    points = _of_norm(Source("norm", n_channels=3, site="bn", gamma=GAMMA, beta=BETA), False)
    assert points.shape == (3, N_POINTS)
    np.testing.assert_allclose(points.mean(1), BETA, atol=1e-12)
    np.testing.assert_allclose(points.std(1), np.abs(GAMMA), atol=1e-12)
    assert (np.diff(points, axis=1) >= 0).all()
    fresh = _of_norm(Source("norm", n_channels=3, site="bn", gamma=GAMMA, beta=BETA), True)
    bare = _of_norm(Source("norm", n_channels=3, site="bn"), False)
    for standard in (fresh, bare):
        np.testing.assert_allclose(standard.mean(1), 0, atol=1e-12)
        np.testing.assert_allclose(standard.std(1), 1, atol=1e-12)


def test_a_sum_has_the_sums_of_means_and_variances() -> None:
    """Fails if terms do not count as independent, or what grouping takes out of the variance is not put back."""
    rng = np.random.default_rng(2)
    a = np.sort(rng.gamma(0.7, size=(3, N_POINTS)) * [[1], [10], [0.1]], axis=1)
    b = np.sort(rng.normal(size=(3, N_POINTS)) + 5, axis=1)
    total = added(a, b)
    np.testing.assert_allclose(total.mean(1), a.mean(1) + b.mean(1), rtol=1e-12)
    np.testing.assert_allclose(total.var(1), a.var(1) + b.var(1), rtol=1e-12)
    assert (np.diff(total, axis=1) >= 0).all()


def test_a_sum_with_a_constant_is_a_shift() -> None:
    """Fails if a term without variance is divided by it, or shrinks the other."""
    a = np.sort(np.random.default_rng(1).normal(size=(2, N_POINTS)), axis=1)
    constant = np.full((2, N_POINTS), 3.0)
    np.testing.assert_allclose(added(a, constant), a + 3, rtol=1e-12)
    np.testing.assert_allclose(added(constant, constant), 6.0, rtol=1e-12)


@pytest.mark.parametrize("a_of_all", [False, True])
@pytest.mark.parametrize("b_of_all", [False, True])
def test_one_row_for_all_channels_gives_what_copies_of_it_give(a_of_all: bool, b_of_all: bool) -> None:
    """Fails if channels that differ are taken for one because the other term's are alike."""
    rng = np.random.default_rng(2)
    of_channels = [np.sort(rng.normal(size=(3, N_POINTS)), axis=1) for _ in range(2)]
    a, b = (
        np.broadcast_to(points[:1], points.shape) if alike else points
        for points, alike in zip(of_channels, (a_of_all, b_of_all), strict=True)
    )
    np.testing.assert_array_equal(added(a, b), added(a.copy(), b.copy()))
    np.testing.assert_array_equal(activated(a, "relu"), activated(a.copy(), "relu"))
    assert activated(a, "glu") is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", lambda x: x),
        ("relu", lambda x: np.maximum(x, 0)),
        ("leaky_relu(0.2)", lambda x: np.where(x > 0, x, 0.2 * x)),
        ("hardtanh(-2, 3)", lambda x: np.clip(x, -2, 3)),
        ("tanh", np.tanh),
    ],
)
def test_values_after_an_activation(name, expected) -> None:
    """Fails if the numbers in brackets are lost or swapped, or the points themselves are overwritten."""
    points = np.linspace(-5, 5, 2 * N_POINTS).reshape(2, N_POINTS)
    before = points.copy()
    np.testing.assert_allclose(activated(points, name), expected(points), rtol=1e-12)
    np.testing.assert_array_equal(points, before)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "glu", "prelu", "rrelu", "of nobody"])
def test_activations_that_are_no_function_of_one_value(name: str) -> None:
    """Fails if values of other channels, random slopes or learned ones are left out of account."""
    assert activated(np.zeros((1, N_POINTS)), name) is None


def norm(gamma: float, beta: float, **changes: object) -> Source:
    fields = {"n_channels": 2, "site": f"bn{gamma}", "gamma": np.full(2, gamma), "beta": np.full(2, beta)}
    return Source("norm", **{**fields, **changes})


def test_what_a_skip_is_made_of() -> None:
    """Fails if concatenated channels are added, sums of three leave one out, or one unknown part is passed over."""
    points = Skips({})._points
    three = Source("sum", n_channels=2, parts=(norm(1, 0), norm(2, 1), norm(3, 2)))
    np.testing.assert_allclose(points(three, False).mean(1), 3, atol=1e-12)
    np.testing.assert_allclose(points(three, False).var(1), 1 + 4 + 9, rtol=1e-12)
    np.testing.assert_allclose(points(three, True).var(1), 3, rtol=1e-12)
    side = Source("concat", n_channels=4, parts=(norm(1, 0), norm(2, 1)))
    np.testing.assert_allclose(points(side, False).var(1), [1, 1, 4, 4], rtol=1e-12)
    for part in (Source("input", n_channels=2), norm(1, 0, pool="max")):
        assert points(Source("sum", n_channels=2, parts=(norm(1, 0), part)), False) is None
    assert points(Source("sum", n_channels=2), False) is None


def test_zeros_beside_a_norm_stay_zeros_at_initialisation() -> None:
    """Fails if channels of zeros, which are no norm of the network, are given variance 1 by initialisation."""
    zeros = Source("norm", n_channels=2, gamma=np.zeros(2), beta=np.zeros(2))
    np.testing.assert_array_equal(Skips({})._points(zeros, True), 0)


def test_half_of_a_gaussian_passes_a_relu() -> None:
    """Fails if the walk does not agree with the closed form: mean 1/√(2π), variance (1 − 1/π)/2."""
    found = Skips({})._points(norm(1, 0, activation="relu"), False)
    np.testing.assert_allclose(found.mean(1), 1 / np.sqrt(2 * np.pi), rtol=0.02)
    np.testing.assert_allclose(found.var(1), (1 - 1 / np.pi) / 2, rtol=0.03)
    torch.testing.assert_close(torch.from_numpy(found).min(), torch.tensor(0.0, dtype=torch.float64))


class Residual(nn.Module):
    """y + norm(conv(y)) for the output y of a batch norm whose γ are 0.5, 1 and 2."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.conv, self.norm = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), norm
        self.first.weight.data = torch.tensor([0.5, 1.0, 2.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return y + self.norm(self.conv(y))


@pytest.mark.parametrize(
    ("norm", "known"),
    [
        (nn.BatchNorm2d(3), True),
        (nn.InstanceNorm2d(3, affine=True), False),
        (nn.GroupNorm(1, 3), False),
    ],
    ids=["batch", "instance", "group"],
)
def test_both_sides_of_a_sum_are_known_of_a_batch_norm_alone(norm: nn.Module, known: bool) -> None:
    """Fails if variances over all samples are put beside a branch whose samples each have a variance of their own."""
    model = Residual(norm).eval()
    with bnprobe.attach(model) as probe, torch.no_grad():
        model(torch.randn(4, 3, 5, 5))
    neighbours = probe.recording.layers[1].neighbours
    assert neighbours.skip == "first"
    if known:
        np.testing.assert_allclose(neighbours.skip_var, [0.25, 1.0, 4.0], rtol=1e-9)
        np.testing.assert_allclose(neighbours.skip_var_initial, 1.0, rtol=1e-9)
    else:
        assert neighbours.skip_var is None
        assert neighbours.skip_var_initial is None
