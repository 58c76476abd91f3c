"""Rasters of a page: smaller, and pixel for pixel the same."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from bnprobe.report.figures.png import COLORS, shrunk, with_palette


def picture(n_colors: int, shape: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Pixels of so many colors, each there; some of them transparent."""
    rng = np.random.default_rng(n_colors)
    colors = np.unique(rng.integers(0, 256, (4 * n_colors, 4), dtype=np.uint8), axis=0)
    colors = rng.permutation(colors)[:n_colors]
    numbers = rng.permutation(np.arange(shape[0] * shape[1]) % n_colors)
    return colors[numbers].reshape(*shape, 4)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGBA"))


@pytest.mark.parametrize("n_colors", [1, 2, 3, 17, COLORS - 1, COLORS, COLORS + 1, 1000])
def test_every_pixel_is_kept(n_colors: int) -> None:
    """Fails if colors or transparency are mixed up, or a color too many is put on another one."""
    pixels = picture(n_colors)
    small = with_palette(png(pixels))
    assert np.array_equal(pixels_of(small), pixels)
    assert (len(small) < len(png(pixels))) == (n_colors <= COLORS)


def test_a_palette_that_costs_more_is_not_taken() -> None:
    """Fails if two hundred colors of two hundred pixels get larger by their palette."""
    whole = png(picture(200, (10, 20)))
    assert with_palette(whole) == whole


def test_rasters_of_a_drawing_are_exchanged_in_place() -> None:
    """Fails if what stands around a raster changes, or only the first one is exchanged."""
    first, second = picture(5), picture(7)
    texts = [base64.b64encode(png(one)).decode() for one in (first, second)]
    broken = "\n".join([texts[0][:70], texts[0][70:]])
    svg = f'<svg><image href="data:image/png;base64,{broken}"/><g/><image x="data:image/png;base64,{texts[1]}"/></svg>'
    around, one, between, other, end = shrunk(svg).replace("data:image/png;base64,", "").split('"')
    assert (around, between, end) == ("<svg><image href=", "/><g/><image x=", "/></svg>")
    assert len(shrunk(svg)) < len(svg) / 2
    for part, pixels in ((one, first), (other, second)):
        assert np.array_equal(pixels_of(base64.b64decode(part)), pixels)
