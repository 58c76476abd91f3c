"""Rasters inside an SVG, made small: as a page holds them as text, each byte counts a third more."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
from PIL import Image

COLORS = 256
"""What a palette holds."""

_RASTER = re.compile(r"(data:image/png;base64,)([A-Za-z0-9+/=\s]+)")


def shrunk(svg: str) -> str:
    """The SVG with each raster as `with_palette` gives it."""
    return _RASTER.sub(
        lambda raster: raster[1] + base64.b64encode(with_palette(base64.b64decode(raster[2]))).decode(), svg
    )


def with_palette(png: bytes) -> bytes:
    """The same pixels by numbers of their colors, a quarter of the bytes; as it was, with too many colors or no gain.

    A cloud of points has one color in as many strengths as points lie on one another.
    """
    pixels = np.ascontiguousarray(Image.open(io.BytesIO(png)).convert("RGBA"))
    height, width, _ = pixels.shape
    colors, numbers = np.unique(pixels.view(np.uint32), return_inverse=True)
    if len(colors) > COLORS:
        return png
    channels = colors.view(np.uint8).reshape(-1, 4)
    picture = Image.fromarray(numbers.reshape(height, width).astype(np.uint8))
    picture.putpalette(channels[:, :3].tobytes())
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True, transparency=channels[:, 3].tobytes())
    return min(png, small.getvalue(), key=len)
