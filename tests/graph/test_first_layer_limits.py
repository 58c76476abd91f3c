"""Random crops of small images: how often a row holds the image, and what paddings are tried."""

from __future__ import annotations

import pytest

from bnprobe.graph.first_layer import _paddings, image_share
from bnprobe.graph.geometry import Geometry


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
