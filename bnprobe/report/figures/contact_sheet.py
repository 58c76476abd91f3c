"""Image files as one picture of many small squares: a page that shows a file in many places holds it once."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from bnprobe.files import open_input

SIDE = 48
"""Pixels by side of a square; a multiple of 16, so that JPEG lets no color into the next one."""

COLUMNS = 16
"""Squares in a row of the picture."""

LARGEST = 1 << 27
"""Bytes of a file that are read."""

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""Decoders that may try, none of which runs a program."""

QUALITY = 72


def thumbnail(path: Path) -> Image.Image | None:
    """The middle of the image in a file as a square of SIDE pixels; None where it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_input(path, LARGEST) as file, Image.open(file, formats=FORMATS) as image:
                image.draft("RGB", (2 * SIDE, 2 * SIDE))
                return ImageOps.fit(image.convert("RGB"), (SIDE, SIDE))
    except Exception:  # a damaged file may raise anything; its name is shown in place of it
        return None


def sheet(squares: Sequence[Image.Image]) -> str:
    """Squares in rows of COLUMNS, as the base64 text of one JPEG."""
    n_rows = -(-len(squares) // COLUMNS)
    picture = Image.new("RGB", (COLUMNS * SIDE, n_rows * SIDE))
    for i, square in enumerate(squares):
        picture.paste(square, (i % COLUMNS * SIDE, i // COLUMNS * SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
