"""Numbers that become images: what one number of each picture does to the pixels, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bnprobe.experiments.synthesize.drawing import noise
from bnprobe.experiments.synthesize.inputs import Inputs
from bnprobe.experiments.synthesize.pyramid import OPPONENT, Pyramid
from bnprobe.experiments.synthesize.recipe import UNIT


def pyramid(*shape: int, levels: int = 5, bounded: bool = False) -> Pyramid:
    return Pyramid(Inputs(shape, torch.tensor(0.0), torch.tensor(1.0), bounded, torch.float32), levels)


def start(of: Pyramid, n: int, until: tuple[int, ...] | None = None) -> torch.Tensor:
    return of.noise(n, torch.Generator().manual_seed(0), of.inputs.shape[1:] if until is None else until)


def test_each_picture_has_half_the_side_of_the_one_before() -> None:
    assert [tuple(side) for side in pyramid(3, 32, 20).sides] == [(32, 20), (16, 10), (8, 5), (4, 2)]
    assert [tuple(side) for side in pyramid(3, 9, 9, levels=2).sides] == [(9, 9), (4, 4)]
    assert [tuple(side) for side in pyramid(3, 1, 1).sides] == [(1, 1)]
    assert [tuple(side) for side in pyramid(7).sides] == [()]


def test_one_number_of_each_picture_moves_its_part_of_the_image() -> None:
    """Fails if pictures are taken in another order, or not enlarged: one of the second covers 2 x 2 pixels, smoothly."""
    of = pyramid(2, 4, 4)
    assert [tuple(side) for side in of.sides] == [(4, 4), (2, 2)]
    values = torch.zeros(1, 2 * 16 + 2 * 4)
    values[0, 16 + 5] = 1  # second channel, row 1, column 1
    values[0, 32] = 1  # first channel of the coarse picture, upper left
    found = ((of.pixels(values) - 0.5) / UNIT)[0].numpy()
    ramp = np.array([1, 0.75, 0.25, 0])  # bilinear, centers of pixels at .5
    assert found[0] == pytest.approx(np.outer(ramp, ramp))
    assert np.argwhere(found[1]).tolist() == [[1, 1]]
    assert found[1, 1, 1] == 1


def test_colors_are_gray_yellow_against_blue_and_magenta_against_green() -> None:
    """Fails if the matrix is transposed, or some color is out of reach."""
    of = pyramid(3, 2, 2, levels=1)
    found = [
        (of.pixels(torch.eye(3).repeat_interleave(4, 1)[i : i + 1]) - 0.5)[0, :, 0, 0] / UNIT
        for i in range(3)
    ]
    gray, yellow, magenta = (one.numpy() for one in found)
    assert gray == pytest.approx([1.66 / 3**0.5] * 3)
    assert yellow == pytest.approx([0.45 / 2**0.5, 0, -0.45 / 2**0.5], abs=1e-6)
    assert magenta == pytest.approx(np.array([1, -2, 1]) * 0.2 / 6**0.5, abs=1e-6)
    assert np.square(OPPONENT).sum() == pytest.approx(3, abs=0.01)  # as much in all as of independent colors
    assert np.linalg.matrix_rank(OPPONENT) == 3


def test_images_start_as_blots_of_every_size() -> None:
    """Fails if the start is white noise, whose mean over a block of 8 x 8 pixels has an eighth of its spread."""
    of = pyramid(3, 128, 128)
    for drawn, low, high in ((noise(of.inputs, 9, 0), 0.11, 0.14), (of.pixels(start(of, 9)), 0.5, 0.9)):
        blocks = drawn.unflatten(2, (16, 8)).unflatten(4, (16, 8)).mean((3, 5))
        assert low < float(blocks.std() / drawn.std()) < high
        assert float(drawn.mean()) == pytest.approx(0.5, abs=0.05)
        assert 0.6 * UNIT < float(drawn.std()) < 1.1 * UNIT


def test_what_is_no_image_starts_as_noise() -> None:
    drawn = pyramid(7).pixels(start(pyramid(7), 500))
    assert drawn.shape == (500, 7)
    assert float(drawn.std()) == pytest.approx(UNIT, rel=0.05)


def test_finer_pictures_come_in_empty() -> None:
    """Fails if a coarse image depends on what it cannot show."""
    of = pyramid(3, 8, 8)
    values = start(of, 2, (4, 4))
    assert not values[:, : 3 * 64].any()
    assert values[:, 3 * 64 :].all()
    coarse = of.pixels(values, (4, 4))
    assert coarse.shape == (2, 3, 4, 4)
    values[:, : 3 * 64] = 1
    assert torch.equal(of.pixels(values, (4, 4)), coarse)


def test_pixels_are_clamped_and_may_come_back() -> None:
    """Fails if a pixel at its limit has no gradient: it would stay there for ever."""
    of = pyramid(3, 4, 4, bounded=True)
    values = (50 * start(of, 2)).requires_grad_()
    pixels = of.pixels(values)
    assert float(pixels.detach().min()) == 0
    assert float(pixels.detach().max()) == 1
    (gradient,) = torch.autograd.grad(pixels.sum(), values)
    assert float(gradient[:, :16].min()) > 0
