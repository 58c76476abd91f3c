"""Shards of images by their place: a folder, a tar file or a Parquet file, here or at an address."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from bnprobe.errors import BadImages
from bnprobe.files import is_file, is_folder, open_input
from bnprobe.files.address import is_address, local_path, shown
from bnprobe.files.fetch import demand_fetchable, fetched
from bnprobe.models.image_folder import Source, find_images
from bnprobe.models.packed_images import USUAL, Fields
from bnprobe.models.parquet_images import needed, parquet_images
from bnprobe.models.tar_images import tar_images

FOLDER, TAR, PARQUET = "folder", ".tar", ".parquet"
"""Kinds of shards."""

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Endings of tar files whose images cannot be read where they lie."""


def shard_place(line: str) -> str:
    """A line of a list in one spelling: an address, or a path of this machine. Raises BadImages for what is no shard."""
    place = line if is_address(line) else str(Path(line))
    if is_address(line) and (local := local_path(line)) is not None:
        place = str(local)
    if is_address(place):
        try:
            demand_fetchable(place)
        except OSError as error:
            raise BadImages(f"{shown(place)}: {error.strerror}. Correct the list.") from None
    elif not is_folder(Path(place)) and not is_file(Path(place)):
        raise BadImages(f"{place}: there is no such folder and no such regular file. Correct the list.")
    if kind_of(place) == PARQUET:
        needed()
    return place


def kind_of(place: str) -> str:
    """What a shard is, by its name. Raises BadImages for a file that is none."""
    name = shown(place)
    if not is_address(place) and is_folder(Path(place)):
        return FOLDER
    if name.lower().endswith(PACKED):
        raise BadImages(
            f"{name}: is packed, and its images are read where they lie. Unpack it to a plain .tar file."
        )
    for kind in (TAR, PARQUET):
        if name.lower().endswith(kind):
            return kind
    raise BadImages(f"{name}: a shard is a folder, a .tar or a .parquet file. Correct the list.")


@contextmanager
def open_shard(place: str, fields: Fields = USUAL) -> Iterator[Source]:
    """The images of a shard, for as long as the block lasts. Raises BadImages where they cannot be read."""
    kind = kind_of(place)
    if kind == FOLDER:
        yield find_images(place)
        return
    with _opened(place) as file:
        if kind == TAR:
            yield tar_images(file, place, fields)
            return
        with tempfile.TemporaryFile(prefix="bnprobe-") as spool:
            yield parquet_images(file, place, fields, spool)


@contextmanager
def _opened(place: str) -> Iterator[BinaryIO]:
    with ExitStack() as stack:
        try:
            path = stack.enter_context(fetched(place)) if is_address(place) else Path(place)
            file = stack.enter_context(open_input(path))
        except OSError as error:
            raise BadImages(
                f"{error.strerror or error}. Correct the list, or run the command again."
            ) from None
        yield file
