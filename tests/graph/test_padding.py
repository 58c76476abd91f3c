"""How often a kernel meets its input: against loops over positions, and against torch's own layers."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from bnprobe.graph.geometry import Geometry
from bnprobe.graph.padding import averaged, grouped, meetings
from graph.layers import LAYERS, as_matrix, geometry_of, n_inputs, values_of


@pytest.mark.parametrize("name", LAYERS)
def test_summed_weights_are_the_mean_of_torchs_own_map(name):
    """Fails if an entry of a kernel is counted where it meets zeros, or a group's channels are another's."""
    layer, size = LAYERS[name]
    weight, _ = values_of(layer)
    geometry = geometry_of(layer, size)
    summed = averaged(weight, geometry)
    groups, per_out, per_in = summed.shape
    matrix, _ = as_matrix(layer, size)
    by_channel = matrix.reshape(*matrix.shape[:2], n_inputs(layer), -1).sum(axis=3).mean(axis=1)
    expected = by_channel.reshape(groups, per_out, groups, per_in)
    for g in range(groups):
        np.testing.assert_allclose(summed[g], expected[g, :, g], atol=1e-12)
        assert (np.delete(expected[g], g, axis=1) == 0).all()


def test_the_shares_are_those_of_the_special_cases():
    """Fails if the border of the two usual convolutions is counted otherwise than by hand."""
    one = np.ones((1, 1, 3))
    for stride, output, expected in (
        (1, 8, [7 / 8, 1, 7 / 8]),
        (2, 4, [3 / 4, 1, 1]),
    ):
        geometry = Geometry((stride,), ((1, 1),), (1,), 1, (8,), (output,))
        assert meetings(one, geometry)[0].mean(axis=1).tolist() == expected


def test_zeros_on_one_side_only_are_counted_there():
    """Fails if the padding after the input is taken for the padding before it."""
    geometry = Geometry((2,), ((0, 1),), (1,), 1, (6,), (3,))  # as TensorFlow pads "same"
    assert meetings(np.ones((1, 1, 3)), geometry)[0].mean(axis=1).tolist() == [1, 1, 2 / 3]


def test_grouping_does_not_copy_what_it_need_not(rng):
    """Fails if the weights of every convolution are copied on the way."""
    weight = rng.normal(size=(4, 3, 3, 3))
    geometry = Geometry((1, 1), ((1, 1),) * 2, (1, 1), 2, (5, 5), (5, 5))
    assert np.shares_memory(grouped(weight, geometry), weight)


def test_a_kernel_of_one_entry_meets_zeros_where_there_is_padding():
    """Fails if weights of one entry are taken as they are, although a border of zeros thins the mean."""
    layer = nn.Conv2d(3, 2, 1, padding=1)
    weight, _ = values_of(layer)
    summed = averaged(weight, geometry_of(layer, (4, 4)))
    np.testing.assert_allclose(summed[0], weight[:, :, 0, 0] * (4 / 6) ** 2)
