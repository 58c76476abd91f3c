"""The stem's matrix and the folded weights: against torch's own layers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from bnprobe.graph import neighbours
from bnprobe.graph.first_layer import _paddings, stem
from bnprobe.graph.fold import folded
from bnprobe.graph.geometry import Geometry
from graph.layers import LAYERS, geometry_of, n_inputs, run, values_of
from graph.watched import neighbours_of, random_vectors


@pytest.mark.parametrize("name", LAYERS)
def test_the_matrix_takes_a_flat_input_to_what_the_norm_sees(name):
    """Fails if a group's weights land at another input channel, or the border is counted as interior."""
    layer, size = LAYERS[name]
    found = stem(*values_of(layer), geometry_of(layer, size))
    colour = np.random.default_rng(4).normal(size=n_inputs(layer))
    flat = torch.from_numpy(colour).reshape(1, -1, *[1] * len(size)).expand(1, -1, *size)
    expected = run(layer, flat)[0].mean(axis=1)
    assert found.matrix.shape == (expected.size, colour.size)
    np.testing.assert_allclose(
        found.matrix @ colour + (0 if found.bias is None else found.bias), expected, atol=1e-12
    )


def test_folded_extremes_are_those_of_the_folded_layer(rng):
    """Fails if gamma, its sign or eps is left out, or the extremes swap with a negative gamma."""
    rows, gamma, var = rng.normal(size=(4, 18)), np.array([0.5, -2.0, 0.0, 1.0]), np.array([1.0, 4, 9, 0])
    found = folded(rows, None, gamma, np.zeros(4), var, 0.25)
    for c in range(4):
        each = [w * gamma[c] / (var[c] + 0.25) ** 0.5 for w in rows[c]]
        assert (found.low[c], found.high[c]) == (min(each), max(each))
        assert found.norm[c] == pytest.approx(sum(w * w for w in rows[c]) ** 0.5)
    assert found.bias is None


@pytest.mark.parametrize("stored", [(None, None), (np.zeros(3), None), (None, np.ones(3))])
def test_a_norm_without_running_statistics_cannot_be_folded(stored, rng):
    """Fails if weights are folded with statistics that are not there, or of which one is missing."""
    bias = rng.normal(size=3)
    found = folded(rng.normal(size=(3, 5)), bias, None, *stored, 1e-5)
    assert np.isnan(found.low).all()
    assert np.isnan(found.high).all()
    assert found.bias is bias
    assert (found.norm > 0).all()


def test_without_gamma_it_is_one():
    """Fails if affine=False cannot be folded."""
    found = folded(np.array([[2.0, -4.0]]), None, None, np.zeros(1), np.array([4.0]), 0.0)
    assert (found.low[0], found.high[0]) == (-2.0, 1.0)


@pytest.mark.parametrize("n_weights", [1, 40, 10**6])
def test_channels_taken_some_at_a_time_are_all_of_them(n_weights, monkeypatch):
    """Fails if channels are lost, doubled or in another order where weights are looked at in parts."""
    model = random_vectors(
        nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 7, 3, padding=1, bias=False),
            nn.BatchNorm2d(7),
            nn.ReLU(),
            nn.Conv2d(7, 14, 3, groups=7),
            nn.BatchNorm2d(14),
            nn.ReLU(),
            nn.ConvTranspose2d(14, 5, 2),
            nn.BatchNorm2d(5),
        )
    )
    x = torch.randn(2, 3, 9, 9)
    monkeypatch.setattr(neighbours, "AT_ONCE", 10**9)
    whole = neighbours_of(model, x)
    monkeypatch.setattr(neighbours, "AT_ONCE", n_weights)
    parts = neighbours_of(copy.deepcopy(model), x)  # of the same model nothing would be worked out twice
    assert sum(found.implied is not None for found in whole.values()) == 3
    for site, found in whole.items():
        for name in ("folded", "implied"):
            one, other = getattr(found, name), getattr(parts[site], name)
            assert (one is None) == (other is None)
            for field, vector in vars(one).items() if one is not None else ():
                again = getattr(other, field)
                assert (again is None) == (vector is None)
                if vector is not None:
                    assert vector.size == model[int(site)].num_features
                    np.testing.assert_allclose(again, vector, rtol=1e-12, err_msg=f"{site} {field}")


@pytest.mark.parametrize(
    ("sides", "transposed", "largest"),
    [
        ((128, 128), False, 12),
        ((129, 128), False, 0),
        ((32, 20), False, 5),
        ((48, 51), False, 12),
        ((3, 3), False, 0),
        ((64,), False, 0),
        ((16, 16, 16), False, 0),
        ((32, 32), True, 0),
    ],
)
def test_paddings_of_random_crops_are_those_of_small_images(sides, transposed, largest):
    """Fails if images of 128 pixels are large, crops are padded by more than a quarter, or a signal is an image."""
    assert list(_paddings(Geometry(input_size=sides, transposed=transposed))) == list(range(1, largest + 1))
