"""Random crops of small images: how often a row holds the image, and what paddings are tried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bnprobe.graph.first_layer import _paddings, image_share, stem
from bnprobe.graph.geometry import Geometry
from graph.layers import geometry_of, run, values_of


@pytest.mark.parametrize(
    ("side", "padding", "expected"),
    [(4, 1, [2, 3, 3, 2]), (5, 2, [3, 4, 5, 4, 3]), (3, 4, [3, 3, 3]), (6, 0, [1] * 6)],
)
def test_how_often_a_row_of_a_crop_is_image(side: int, padding: int, expected: list[int]) -> None:
    """Fails if a start is missing, or the first or last row of the image is none: counted over all starts."""
    assert (image_share(side, padding) * (2 * padding + 1)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sides", "largest"),
    [
        ((4, 4), 1),
        ((3, 9), 0),
        ((15, 16), 3),
        ((16, 20), 4),
        ((20, 19), 4),
        ((48, 64), 12),
        ((64, 60), 12),
        ((128, 128), 12),
        ((129, 64), 0),
        ((16,), 0),
        ((16, 16, 16), 0),
    ],
)
def test_a_quarter_of_the_side_is_padded_at_most(sides: tuple[int, ...], largest: int) -> None:
    """Fails if a fifth is the most, large images or other inputs are padded, or more than twelve pixels are tried."""
    assert list(_paddings(Geometry(input_size=sides))) == list(range(1, largest + 1))


def covariance(layer: nn.Module, size: tuple[int, ...]) -> np.ndarray:
    """Over positions, of the outputs that an input has which is 1 in one channel and 0 in the others: (C, F, F)."""
    weight = values_of(layer)[0]
    columns = []
    for f in range(weight.shape[1]):
        x = torch.zeros(1, weight.shape[1], *size)
        x[:, f] = 1
        columns.append(run(layer, x)[0])
    if layer.bias is not None:
        columns = [column - layer.bias.detach().double().numpy()[:, None] for column in columns]
    return np.array([np.cov([column[c] for column in columns], bias=True).reshape(2 * [len(columns)])
                     for c in range(weight.shape[0])])  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("kind", "size"), [(nn.Conv1d, (7,)), (nn.Conv2d, (5, 6)), (nn.Conv3d, (3, 4, 3))], ids=["1d", "2d", "3d"]
)
def test_what_the_zeros_around_an_image_make_of_constant_channels(
    kind: type[nn.Module], size: tuple[int, ...], channels: int
) -> None:
    """Fails if the border's covariance is not that of torch's own outputs over positions."""
    torch.manual_seed(channels)
    layer = kind(channels, 2, 3, padding=1, stride=2)
    found = stem(*values_of(layer), geometry_of(layer, size)).border
    assert found is not None
    np.testing.assert_allclose(found, covariance(layer, size), atol=1e-7)
    unpadded = kind(channels, 2, 3)
    np.testing.assert_allclose(stem(*values_of(unpadded), geometry_of(unpadded, size)).border, 0, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(5, 2, 3, padding=1),
        nn.Conv2d(4, 2, 3, padding=1, groups=2),
        nn.ConvTranspose2d(3, 2, 3, padding=1),
    ],
    ids=["five channels", "groups", "transposed"],
)
def test_layers_whose_border_is_not_worked_out(layer: nn.Module) -> None:
    """Fails if the covariance of many channels, or of a layer that reads only some of them, is worked out."""
    assert stem(*values_of(layer), geometry_of(layer, (5, 6))).border is None


@pytest.mark.parametrize(("side", "paddings"), [(8, 2), (3, 0), (7, 1)])
def test_every_crop_has_the_share_that_is_black(side: int, paddings: int) -> None:
    """Fails if the share is that of one side, or the matrix is that of another padding: cropped by hand."""
    layer = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    found = stem(*values_of(layer), geometry_of(layer, (side, side + 1)))
    assert [crop.padding for crop in found.crops] == list(range(1, paddings + 1))
    for crop in found.crops:
        p = crop.padding
        x = F.pad(torch.ones(1, 2, side, side + 1) * torch.tensor([1.0, -2.0])[:, None, None], (p,) * 4)
        crops = [
            x[:, :, top : top + side, left : left + side + 1]
            for top in range(2 * p + 1)
            for left in range(2 * p + 1)
        ]
        assert crop.share == pytest.approx(np.mean([(one[0, 0] == 0).double().mean() for one in crops]))
        means = np.mean([run(layer, one)[0].mean(1) for one in crops], axis=0)
        np.testing.assert_allclose(crop.matrix @ [1, -2], means, atol=1e-6)
