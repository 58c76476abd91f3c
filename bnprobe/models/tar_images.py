"""Images in a tar file as WebDataset writes them: 000.jpg with its class in 000.cls, one sample after another.

Nothing is unpacked: the headers say where each image lies, and it is read from there. Links are not followed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from bnprobe.errors import BadImages
from bnprobe.files.limits import TooMuch
from bnprobe.models.packed_images import (
    ENDINGS,
    NO_LABELS,
    Fields,
    PackedImages,
    Span,
    demand_class,
    packed,
)

MOST_MEMBERS = 2**22
"""Files in a tar: a thousand times what is usual."""

LARGEST_HEADER = 2**20
"""Bytes of a header: what is read of one before anything is known of it."""

_LONGEST_CLASS = 64
"""Bytes of a file that holds the number of a class."""

_BLOCK = 512


class Member(NamedTuple):
    """A file in the tar: the name of its sample, what follows the first dot, and where its bytes lie."""

    sample: str
    ending: str
    span: Span

    @property
    def name(self) -> str:
        """Its whole name."""
        return f"{self.sample}.{self.ending}" if self.ending else self.sample


def tar_images(file: BinaryIO, place: str, fields: Fields) -> PackedImages:
    """The images of an opened tar, with their classes where each has one.

    Raises BadImages for what is no tar, was cut, holds no image, or has classes for some of its images only.
    """
    wanted = (fields.image.lower().lstrip("."),) if fields.image else ENDINGS
    label = (fields.label or "cls").lower().lstrip(".")
    images: list[Member] = []
    classes: dict[str, Span] = {}
    endings: set[str] = set()
    for member in _members(file):
        endings.add(member.ending)
        if member.ending in wanted:
            images.append(member)
        elif member.ending == label and label != NO_LABELS:
            classes[member.sample] = member.span
    if not images:
        raise BadImages(
            f"no images in it, but files ending in {', '.join(sorted(endings)[:8]) or 'nothing'}. Name the ending of the "
            f"images with --image-field, or leave it out."
        )
    labels = (
        _labels(file, images, classes, label) if classes or fields.label not in (None, NO_LABELS) else None
    )
    return packed(place, file, [one.name for one in images], [one.span for one in images], labels)


def _labels(file: BinaryIO, images: list[Member], classes: dict[str, Span], label: str) -> list[int]:
    lacking = [image.name for image in images if image.sample not in classes]
    if lacking:
        raise BadImages(
            f"{len(lacking):,} of {len(images):,} images have no .{label}, the first is {lacking[0]}. Give each its class, "
            f"or leave classes out with --label-field {NO_LABELS}."
        )
    return [_class(file, classes[image.sample], f"{image.sample}.{label}") for image in images]


def _class(file: BinaryIO, span: Span, name: str) -> int:
    file.seek(span.start)
    text = file.read(min(span.size, _LONGEST_CLASS)).strip()
    if span.lacks or not text.isdigit():
        raise BadImages(
            f"{name} holds {text[:20].decode(errors='replace')!r}, and a class is a number from 0. Write numbers, or leave "
            f"classes out with --label-field {NO_LABELS}."
        )
    return demand_class(int(text), name)


def _members(file: BinaryIO) -> Iterator[Member]:
    """Every file of the tar. Raises BadImages where it was cut, or is none."""
    known: set[str] = set()
    try:
        for entry in _entries(file):
            path = PurePosixPath(entry.name)
            if entry.isdir() or path.name.startswith("."):
                continue
            whole = entry.isreg() and not entry.issparse()
            lacks = "" if whole else "a link or a sparse file, which is not read"
            stem, _, ending = path.name.partition(".")
            member = Member(
                str(path.parent / stem), ending.lower(), Span(entry.offset_data, entry.size, lacks)
            )
            if member.name in known:
                raise ValueError(f"it holds {member.name[:80]} twice")
            known.add(member.name)
            yield member
    except TooMuch as error:
        raise BadImages(f"{error}, and no more are read. Make smaller shards.") from None
    except (tarfile.TarError, ValueError, OSError, OverflowError, RecursionError) as error:
        reason = (
            "headers within headers"
            if isinstance(error, RecursionError)
            else " ".join(str(error).split())[:120]
        )
        raise BadImages(
            f"truncated, or no tar file ({reason}). Write it again, or download it again."
        ) from None


def _entries(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    with tarfile.TarFile(fileobj=cast(BinaryIO, _Bounded(file))) as tar:
        end, n = -1, 0
        while (entry := tar.next()) is not None:
            if entry.size < 0 or tar.offset <= end:
                raise ValueError("a header in it is damaged")
            end, n = tar.offset, n + 1
            if n > MOST_MEMBERS:
                raise TooMuch(f"it holds more than {MOST_MEMBERS:,} files")
            cast(Any, tar).members.clear()  # tarfile would keep every header
            yield entry
        # a damaged header, too, ends the loop quietly
        file.seek(tar.offset)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError("the mark of its end is missing")


class _Bounded:
    """A file of which no header can ask for more than its due: tarfile reads them into RAM by the size they claim."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.mode = file.seek, file.tell, "rb"
        self.name = ""

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        if not 0 <= size <= LARGEST_HEADER:
            raise ValueError(f"a header of {size:,} bytes")
        return self._file.read(size)
