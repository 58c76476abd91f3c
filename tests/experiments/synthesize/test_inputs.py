"""Which shape is taken where none is given, and which classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import bnprobe
from bnprobe.errors import BnprobeError
from bnprobe.experiments.synthesize.inputs import target_classes
from tests.experiments.synthesize.small import batch, trained


def block(channels_in: int, channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU()]


@pytest.mark.parametrize(
    ("strides", "side"),
    [
        ((1, 2), 32),  # as CIFAR's networks: 16 x 16 positions in the last norm
        ((2, 2, 2, 2, 2), 224),  # as ImageNet's: one position of 32 pixels
    ],
)
def test_the_side_is_one_in_which_the_deepest_norm_sees_a_shape(strides: tuple[int, ...], side: int) -> None:
    layers = [layer for i, stride in enumerate(strides) for layer in block(3 if i == 0 else 2, 2, stride)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    model(torch.randn(4, 3, 64, 64))
    assert bnprobe.synthesize(model, n=2, steps=1, controls=False).shape == (3, side, side)


def test_a_fixed_size_is_found() -> None:
    """Fails if a network with a weight for every pixel of 28 x 28 gray images is not recognized by trying."""
    model = nn.Sequential(*block(1, 2, 1), nn.Flatten(), nn.Linear(2 * 28 * 28, 3))
    model(torch.randn(4, 1, 28, 28))
    assert bnprobe.synthesize(model, n=2, steps=1, controls=False).shape == (1, 28, 28)


def test_data_tell_the_shape() -> None:
    assert bnprobe.synthesize(trained(), n=2, steps=1, controls=False, data=[batch(4, 0)]).shape == (3, 8, 8)


def test_a_side_is_of_an_image_of_the_first_layers_channels() -> None:
    model = nn.Sequential(nn.Conv2d(6, 2, 3, groups=2), nn.BatchNorm2d(2))
    model(torch.randn(4, 6, 9, 9))
    assert bnprobe.synthesize(model, n=2, steps=1, shape=(9, 10), controls=False).shape == (6, 9, 10)


def test_a_network_that_takes_none_of_the_usual_sizes_is_refused() -> None:
    model = nn.Sequential(*block(3, 2, 1), nn.Flatten(), nn.Linear(2 * 49, 3))
    model(torch.randn(4, 3, 7, 7))
    with pytest.raises(BnprobeError, match=r"takes no images of the usual sizes. Pass shape="):
        bnprobe.synthesize(model)


def test_classes_go_by_turns_and_are_spread_where_there_are_more_of_them() -> None:
    assert target_classes(None, 5, 3).tolist() == [0, 1, 2, 0, 1]  # type: ignore[union-attr]
    assert target_classes(None, 4, 1000).tolist() == [0, 250, 500, 750]  # type: ignore[union-attr]
    assert target_classes([2, 0], 5, 3).tolist() == [2, 0, 2, 0, 2]  # type: ignore[union-attr]
    assert target_classes(1, 2, 3).tolist() == [1, 1]  # type: ignore[union-attr]
    assert target_classes(torch.tensor([1, 2]), 2, 3).tolist() == [1, 2]  # type: ignore[union-attr]
