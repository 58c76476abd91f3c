"""Channels of the model's input that hold one value, as the first pass shows them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graph.watched import neighbours_of


def first(layer: nn.Module, norm: nn.Module, x: Tensor) -> np.ndarray | None:
    stem = neighbours_of(nn.Sequential(layer, norm).eval(), x)["1"].stem
    assert stem is not None
    return stem.constant


@pytest.mark.parametrize("n_sides", [1, 2, 3])
def test_a_channel_that_holds_one_value_is_seen(n_sides: int):
    """Fails if a channel that varies within samples or between them alone is constant, or a value is another's."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n_sides - 1](4, 6, 3)
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[n_sides - 1](6)
    x = torch.randn(5, 4, *[7] * n_sides)
    x[:, 0], x[:, 2] = 0, -1.5
    x[:, 3] = torch.arange(5.0).view(5, *[1] * n_sides)
    found = first(conv, norm, x)
    assert found is not None
    np.testing.assert_array_equal(found, [0, np.nan, -1.5, np.nan])


def test_features_of_a_table_may_hold_one_value():
    """Fails if a category that no sample has is an empty channel."""
    assert first(nn.Linear(4, 6), nn.BatchNorm1d(6), torch.zeros(5, 4)) is None


def test_two_inputs_of_one_shape_are_not_told_apart():
    """Fails if the channels of a mask or of a second picture are said to be those of the first."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.norm(self.conv(x))
            return out

    x = torch.randn(2, 3, 8, 8)
    stem = neighbours_of(Two().eval(), x, torch.zeros_like(x))["norm"].stem
    assert stem is not None
    assert stem.constant is None
