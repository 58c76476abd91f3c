"""Small pictures of pixels, as a page holds them: WebP, or PNG where that is not to be had."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

LARGEST = 128
"""Pixels by side: what is larger is made smaller."""

QUALITY = 85


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Pixels (H, W, 3) as the address of an image that needs no request."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST))
    kind, options = ("webp", {"quality": QUALITY}) if features.check("webp") else ("png", {"optimize": True})
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
