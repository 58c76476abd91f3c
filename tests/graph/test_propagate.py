"""The implied mean and variance: against torch's own linear maps, Monte Carlo, and the four mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnprobe.graph.geometry import Geometry, Source
from bnprobe.graph.propagate import SEED, reaching
from bnprobe.graph.propagate import implied as implied_by
from bnprobe.recording.neighbours import Implied
from graph.layers import LAYERS, geometry_of, n_inputs, pooled, run, values_of

ACTIVATIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "none": lambda x: x,
}


def implied(
    weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry, source: Source
) -> Implied | None:
    return implied_by(weight, bias, geometry, reaching(source))


def norm(c: int, activation: str = "relu", seed: int = 3) -> Source:
    """A norm with both signs of gamma, and one channel switched off."""
    rng = np.random.default_rng(seed)
    gamma, beta = rng.normal(size=c), rng.normal(size=c)
    gamma[0] = 0.0
    return Source("norm", activation, c, "bn", gamma, beta)


def by_drawing(source: Source, n: int = 2_000_000) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the values of every channel, by one million pairs of mirrored normal draws."""
    z = np.random.default_rng(0).normal(size=(n // 2, 1))
    x = source.beta + source.gamma * np.concatenate([z, -z])
    y = ACTIVATIONS[source.activation](torch.from_numpy(x)).numpy()
    return y.mean(axis=0), y.var(axis=0)


@pytest.mark.parametrize("name", LAYERS)
def test_mean_and_variance_are_those_of_torchs_own_map(name):
    """Fails if a border, a group, a stride, the bias or the square of a weight is handled otherwise than by torch."""
    layer, size = LAYERS[name]
    source = norm(n_inputs(layer))
    found = implied(*values_of(layer), geometry_of(layer, size), source)
    mean, var = pooled(layer, size, *by_drawing(source))
    np.testing.assert_allclose(found.mean, mean, atol=5e-3)
    np.testing.assert_allclose(found.var, var, rtol=1e-2)
    exact = norm(n_inputs(layer), "none")
    found = implied(*values_of(layer), geometry_of(layer, size), exact)
    mean, var = pooled(layer, size, exact.beta, exact.gamma**2)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.var, var, rtol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_network_that_keeps_the_assumptions_agrees(activation):
    """Fails if the activation is not that of the source; random normal maps through torch, 5 standard errors."""
    layer, source = nn.Conv2d(4, 3, 3, padding=1), norm(4, activation)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 4, 6, 5, generator=generator, dtype=torch.float64)
    x = x * torch.from_numpy(source.gamma)[:, None, None] + torch.from_numpy(source.beta)[:, None, None]
    y = run(layer, ACTIVATIONS[activation](x))
    found = implied(*values_of(layer), geometry_of(layer, (6, 5)), source)
    means = y.mean(axis=2)
    assert (np.abs(found.mean - means.mean(axis=0)) < 5 * means.std(axis=0) / np.sqrt(4000)).all()
    squares = ((y - found.mean[:, None]) ** 2).mean(axis=2)
    assert (np.abs(found.var - squares.mean(axis=0)) < 5 * squares.std(axis=0) / np.sqrt(4000)).all()


def test_every_control_makes_its_own_mistake():
    """Fails if a control is the prediction itself, or is wrong in another way than it says."""
    layer, source = nn.Conv2d(5, 4, 3, padding=1), norm(5)
    weight, bias = values_of(layer)
    geometry = geometry_of(layer, (6, 5))
    found = implied(weight, bias, geometry, source)
    values, _ = by_drawing(source)
    order = np.random.default_rng(SEED).permutation(5)
    assert (order != np.arange(5)).any()
    for name, changed in (
        ("mean_permuted", values[order]),
        ("mean_constant", np.full(5, values.mean())),
        ("mean_signed", np.where(source.gamma < 0, source.beta - values, values)),
    ):
        expected, _ = pooled(layer, (6, 5), changed, changed)
        np.testing.assert_allclose(getattr(found, name), expected, atol=5e-3, err_msg=name)
        assert np.abs(getattr(found, name) - found.mean).max() > 0.02, name
    unpadded = weight.sum(axis=(2, 3)) @ values + bias
    np.testing.assert_allclose(found.mean_unpadded, unpadded, atol=5e-3)
    assert np.abs(found.mean_unpadded - found.mean).max() > 0.02


def test_channels_side_by_side_are_those_of_their_sources():
    """Fails if a block of channels is read from another source, or takes another's activation."""
    layer, first, second = nn.Conv2d(5, 3, 3, padding=1), norm(2, "silu", 5), norm(3, "none", 6)
    weight, _ = values_of(layer)
    both = Source("concat", n_channels=5, parts=(first, second))
    found = implied(weight, None, geometry_of(layer, (4, 4)), both)
    parts = []
    for source, columns in ((first, weight[:, :2]), (second, weight[:, 2:])):
        geometry = geometry_of(nn.Conv2d(source.n_channels, 3, 3, padding=1), (4, 4))
        parts.append(implied(columns, None, geometry, source))
    np.testing.assert_allclose(found.mean, parts[0].mean + parts[1].mean)
    np.testing.assert_allclose(found.mean_signed, parts[0].mean_signed + parts[1].mean_signed)


def test_a_sum_of_norms_is_a_gaussian_of_summed_moments():
    """Fails if the activation after an addition is applied before it, or deviations are added for variances."""
    layer, a, b = nn.Conv2d(4, 3, 3, padding=1), norm(4, "none", 5), norm(4, "none", 6)
    added = Source("norm", "relu", 4, "", np.sqrt(a.gamma**2 + b.gamma**2), a.beta + b.beta)
    values = *values_of(layer), geometry_of(layer, (4, 4))
    found = implied(*values, Source("sum", "relu", 4, parts=(a, b)))
    expected = implied(*values, added)
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.var, expected.var)


def test_a_norm_without_gamma_and_beta_hands_on_zero_and_one():
    """Fails if affine=False is taken for an unknown source."""
    layer = nn.Conv2d(4, 3, 1, bias=False)
    values = *values_of(layer), geometry_of(layer, (4, 4))
    plain = implied(*values, Source("norm", "relu", 4, "bn"))
    written = implied(*values, Source("norm", "relu", 4, "bn", np.ones(4), np.zeros(4)))
    np.testing.assert_array_equal(plain.mean, written.mean)
    np.testing.assert_array_equal(plain.var, written.var)


def test_an_average_over_positions_keeps_the_mean_and_not_the_variance():
    """Fails if a pooled source is taken as it was before the pooling."""
    layer, source = nn.Conv2d(4, 3, 1, bias=False), norm(4)
    values = *values_of(layer), geometry_of(layer, (4, 4))
    pooled_source = Source("norm", "relu", 4, "bn", source.gamma, source.beta, pool="avg")
    found = implied(*values, pooled_source)
    np.testing.assert_array_equal(found.mean, implied(*values, source).mean)
    assert np.isnan(found.var).all()


@pytest.mark.parametrize(
    "source",
    [
        Source("input", n_channels=4),
        Source("unknown", "relu", 4),
        Source("norm", "softsign", 4),
        Source("norm", "relu", 4, pool="max"),
        Source("norm", "relu", 3),
        Source("concat", n_channels=4),
        Source("concat", parts=(norm(2), Source("unknown", n_channels=2))),
        Source("sum", parts=(norm(4), norm(3))),
        Source("sum", "relu", parts=(norm(4), Source("norm", "relu", 4, pool="avg"))),
    ],
    ids=lambda source: f"{source.what} {source.activation} {source.pool}",
)
def test_what_is_not_known_implies_nothing(source):
    """Fails if a number is made up where a formula does not hold."""
    layer = nn.Conv2d(4, 3, 1)
    assert implied(*values_of(layer), geometry_of(layer, (4, 4)), source) is None


def test_nothing_is_drawn_from_anybodys_random_state():
    """Fails if the permuted control seeds or advances numpy's or torch's global generator."""
    layer, source = LAYERS["3x3"][0], norm(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    arguments = *values_of(layer), geometry_of(layer, (5, 7)), source
    first, second = implied(*arguments), implied(*arguments)
    np.testing.assert_array_equal(first.mean_permuted, second.mean_permuted)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_linear_layer_has_no_borders():
    """Fails if a layer without positions needs a size."""
    weight, source = (
        np.array([[1.0, -2.0], [0.5, 3.0]]),
        Source("norm", "none", 2, "bn", np.array([2.0, -1.0])),
    )
    found = implied(weight, np.array([1.0, 0.0]), Geometry(), source)
    assert found.mean.tolist() == [1.0, 0.0]
    assert found.var.tolist() == [8.0, 10.0]
    np.testing.assert_array_equal(found.mean_unpadded, found.mean)


@pytest.mark.parametrize("activation", ["relu", "silu", "relu6"])
def test_the_signed_mean_of_an_activated_sum(activation):
    """Fails if it is the mean of squares, or that of |γ|: a Gaussian of the summed signed means, drawn."""
    inner = [norm(3, "relu", 5), norm(3, "none", 6)]
    found = reaching(Source("sum", activation, 3, parts=tuple(inner)))
    terms = [reaching(one) for one in inner]
    assert np.abs(terms[0].signed - terms[0].mean).max() > 0.01
    for field in ("mean", "signed"):
        mean = sum(getattr(one, field) for one in terms)
        gamma = np.sqrt(sum(one.var for one in terms))
        drawn, var = by_drawing(Source("norm", activation, 3, "bn", gamma, mean), 400_000)
        np.testing.assert_allclose(getattr(found, field), drawn, atol=1e-2)
        if field == "mean":
            np.testing.assert_allclose(found.var, var, rtol=2e-2, atol=1e-9)


def test_what_was_found_of_a_source_is_found_once():
    """Fails if the parts that sources share are worked out again, or one stands for another with other vectors."""
    known = {}
    one, other = norm(3, "relu", 5), norm(3, "relu", 6)
    first = reaching(one, known)
    assert reaching(norm(3, "relu", 5), known) is first
    assert reaching(other, known) is not first
    assert reaching(Source("sum", "none", 3, parts=(one, other)), known) is not None
    assert set(known) == {one.key, other.key, Source("sum", "none", 3, parts=(one, other)).key}
    assert reaching(Source("input"), known) is None
    assert Source("input").key in known
