"""Many encoded images in one file, each by its place there."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from bnprobe.errors import BadImages
from bnprobe.files.address import is_address, shown
from bnprobe.models.image_folder import LARGEST, SUFFIXES, Source, decode

ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)
"""What the names of images end in, without a dot."""

LARGEST_CLASS = 2**24
"""Number of a class: a thousand times the most that data sets have."""


class Fields(NamedTuple):
    """What image and class are called in a file: the endings of files in a tar, or columns; None for what is usual."""

    image: str | None = None
    label: str | None = None


USUAL = Fields()

NO_LABELS = "none"
"""The name of a field of labels that are not wanted."""


class Span(NamedTuple):
    """Where the bytes of an image lie; `lacks` says why there are none, where that is so."""

    start: int
    size: int
    lacks: str = ""


@dataclass(frozen=True)
class PackedImages(Source):
    """Images that lie in a `file`, in its order; `paths` are their names in `place`. Read while the file is open."""

    place: Path = field(kw_only=True)
    file: BinaryIO = field(kw_only=True)
    spans: tuple[Span, ...] = field(kw_only=True)

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. Raises what the decoder raises, and OSError for one that is not there."""
        span = self.spans[index]
        if span.lacks or span.size > LARGEST:
            raise OSError(
                span.lacks or f"larger than the {LARGEST / 2**20:,.0f} MB that are read of an image"
            )
        self.file.seek(span.start)
        return decode(BytesIO(self.file.read(span.size)))

    def caption(self, index: int) -> Path | str:
        """What image `index` is: the name of the file that holds it, and its own."""
        return self.place / self.paths[index]


def packed(
    place: str, file: BinaryIO, names: list[str], spans: list[Span], labels: list[int] | None
) -> PackedImages:
    """The images of one file, which messages call by its last names."""
    where = Path(shown(place).partition("://")[2] if is_address(place) else place)
    words = f"{len(spans):,} image{'s' * (len(spans) != 1)} in {'/'.join(where.parts[-2:])}"
    kept = None if labels is None else tuple(labels)
    return PackedImages(words, tuple(map(Path, names)), kept, place=where, file=file, spans=tuple(spans))


def demand_class(number: int, where: str) -> int:
    """The number of a class. Raises BadImages where it can be none."""
    if not 0 <= number < LARGEST_CLASS:
        raise BadImages(
            f"{where} holds class {number:,}. Classes are numbers from 0; leave them out with --label-field {NO_LABELS}."
        )
    return number
