"""Shards as other programs write them: tar files and Parquet files of encoded images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def png(seed: int, size: tuple[int, int] = (11, 9)) -> bytes:
    """An image that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def samples(seeds: range, classes: bool = True) -> dict[str, bytes]:
    """Members of a tar: an image and its class, which is the seed's remainder by 3."""
    members: dict[str, bytes] = {}
    for seed in seeds:
        members[f"{seed:06}.png"] = png(seed)
        if classes:
            members[f"{seed:06}.cls"] = str(seed % 3).encode()
    return members


def tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar as tarfile writes it."""
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path
