"""Folders of images to batches of tensors, and the shipped digits with the same interface.

A `Source` has its images in one fixed order; `Source.batches` prepares them, a batch at a time, and keeps
count of what could not be read: a damaged file is a fact to report, not the end of a run.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from torch import Tensor

from bnprobe.errors import BadImages
from bnprobe.files import open_input

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
# A suffix does not say what a file holds: only these decoders may try, none of which runs a program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
LARGEST = 2**30
"""Bytes of an image file that are read: the largest that Pillow takes has a quarter of that, uncompressed."""

DEMO_DIGITS = Path(__file__).parent / "demo_data" / "held_out_digits.npz"

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Batch:
    """Prepared images, their class indices and what they are; `labels` is None where there are no classes."""

    images: list[Tensor]
    labels: list[int] | None
    captions: list[Path | str]


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out, and why, in one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Source:
    """Images in a fixed order, in `words` what they are; `labels` are indices into `classes`, or None."""

    words: str
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. May raise anything that a damaged file makes a decoder raise."""
        return read_rgb(self.paths[index])

    def caption(self, index: int) -> Path | str:
        """What image `index` is: its file."""
        return self.paths[index]

    def batches(self, preprocess: Preprocess, batch_size: int, limit: int | None = None) -> Batches:
        """Prepared images in batches of `batch_size`, each from all over the source; at most `limit`, evenly spread."""
        return Batches(self, preprocess, batch_size, mixed(spread(len(self), limit), batch_size))


@dataclass(frozen=True)
class DemoImages(Source):
    """The held-out handwritten digits that come with bnprobe: `pixels` (N, 8, 8), uint8."""

    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]] = field(kw_only=True)

    def image(self, index: int) -> Image.Image:
        """Digit `index` in RGB, all three channels alike."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def caption(self, index: int) -> Path | str:
        """What digit `index` is: no file, but one of many in one."""
        return f"held-out digit {index}"


@dataclass(frozen=True)
class Batches:
    """A pass over some images of a source; every `iter` reads them again.

    `len` is the number of batches when everything can be read; unreadable images make it fewer, since batches
    are filled up. `unreadable` holds those met so far in the latest pass.
    """

    source: Source
    preprocess: Preprocess
    batch_size: int
    picked: tuple[int, ...]
    unreadable: list[Unreadable] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise BadImages(f"batch size is {self.batch_size}. Give at least 1.")

    def __len__(self) -> int:
        return -(-len(self.picked) // self.batch_size)

    def share(self, index: int, of: int) -> Batches:
        """Part `index` of `of` of the batches, one behind another. Batches hold what they hold in the whole."""
        n, size = len(self), self.batch_size
        if n < of:
            raise BadImages(
                f"{self.n_images:,} images in {n} batch{'es' * (n != 1)} cannot be shared by {of} processes. "
                "Start fewer, or give a smaller --batch-size."
            )
        first, end = n * index // of, n * (index + 1) // of
        return replace(self, picked=self.picked[first * size : end * size], unreadable=[])

    @property
    def has_labels(self) -> bool:
        """Whether every image has a class."""
        return self.source.labels is not None

    @property
    def advice(self) -> str:
        """What to look at where a model fails on these batches."""
        return (
            "Check --size, --mean and --std (one number each where the model takes gray images), and --batch-size if it ran "
            "out of RAM. For inputs that are no images give --batches."
        )

    @property
    def n_images(self) -> int:
        """Images this pass will try to read."""
        return len(self.picked)

    @property
    def words(self) -> str:
        """What is read, in one sentence: all of the source, or which part of it."""
        if self.n_images == len(self.source):
            return self.source.words
        said = f"{self.n_images:,} of {self.source.words}, evenly spread over their sorted order"
        labels = self.source.labels
        if labels is None:
            return said
        unread = len(self.source.classes) - len({labels[i] for i in self.picked})
        if unread <= 0:
            return said
        return f"{said}; {unread:,} of its classes {'is' if unread == 1 else 'are'} not among them"

    @property
    def words_read(self) -> str:
        """As `words`, and how many could not be read in the latest pass."""
        bad = f", {len(self.unreadable):,} of which could not be read" if self.unreadable else ""
        return self.words + bad

    def __iter__(self) -> Iterator[Batch]:
        """Full batches and a last, smaller one. Raises BadImages at the end if no image could be read."""
        self.unreadable.clear()
        labels, readable = self.source.labels, self._readable()
        while part := list(islice(readable, self.batch_size)):
            images, numbers = zip(*part, strict=True)
            captions = [self.source.caption(number) for number in numbers]
            yield Batch(
                list(images), None if labels is None else [labels[number] for number in numbers], captions
            )
        if len(self.unreadable) == self.n_images:
            first = self.unreadable[0]
            raise BadImages(
                f"none of {self.words} could be read; the first is {first.path} ({first.reason}). "
                "Check that they open in an image viewer."
            )

    def _readable(self) -> Iterator[tuple[Tensor, int]]:
        """Each image as a tensor, with its number; a line in `unreadable` where that fails."""
        for index in self.picked:
            try:
                image = self.preprocess(self.source.image(index))
            except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
                self.unreadable.append(Unreadable(self.source.paths[index], _reason(error)))
            else:
                yield image, index


def find_images(folder: Path | str) -> Source:
    """Every image under `folder`, in the same order on every file system.

    Sub-folders of the first level are classes, in sorted order, unless an image lies beside them. Hidden
    names are skipped, links to folders followed once. Raises BadImages for no folder, or no image in it.
    """
    root = Path(folder)
    if not root.exists():
        raise BadImages(f"there is no folder {root}. Check --data.")
    if not root.is_dir():
        raise BadImages(f"{root} is a file. Give the folder it is in, with one sub-folder per class or none.")
    inside = sorted(_walk(root), key=_order)
    if not inside:
        raise BadImages(f"no images in {root} or below it. Looked for files ending in {' '.join(SUFFIXES)}.")
    labels, classes = _labels(inside)
    paths = tuple(root / path for path in inside)
    return Source(_words(root, len(paths), len(classes)), paths, labels, classes)


def demo_images() -> DemoImages:
    """The digits held out when the shipped model was trained: the data when no folder is given."""
    with open_input(DEMO_DIGITS) as shipped, np.load(shipped, allow_pickle=False) as file:
        pixels, labels = file["images"], tuple(map(int, file["labels"]))
    words = (
        f"{len(pixels)} handwritten digits of 10 classes, 8 x 8 px, shipped with bnprobe "
        "(scikit-learn's, held out from training)"
    )
    paths = tuple(DEMO_DIGITS / str(index) for index in range(len(pixels)))  # one file, and a number in it
    return DemoImages(words, paths, labels, tuple("0123456789"), pixels=pixels)


def spread(n: int, limit: int | None) -> tuple[int, ...]:
    """`limit` of the numbers 0..n-1, evenly spread, always the same; all of them where `limit` is None."""
    if limit is not None and limit < 1:
        raise BadImages(f"the limit is {limit} images. Give at least 1, or leave it out for all {n:,}.")
    if limit is None or limit >= n:
        return tuple(range(n))
    return tuple((2 * i + 1) * n // (2 * limit) for i in range(limit))  # the middle of each of `limit` parts


def mixed(picked: tuple[int, ...], batch_size: int) -> tuple[int, ...]:
    """The same numbers in an order whose batches each run through all of them, as long as there are several batches.

    In sorted order a batch would hold a class or two: norms in train mode would see these alone, and samples of one
    batch would not be independent.
    """
    n_batches = -(-len(picked) // max(batch_size, 1))
    return tuple(number for first in range(n_batches) for number in picked[first::n_batches])


def read_rgb(path: Path) -> Image.Image:
    """The whole image in `path`, in RGB. Raises what the decoder raises, and for anything that is no file."""
    with open_input(path, LARGEST) as file:
        return decode(file)


def decode(file: BinaryIO) -> Image.Image:
    """The whole image in an opened file, in RGB. Raises what the decoder raises."""
    Image.init()  # until then PIL knows five formats, and a name it does not know is a KeyError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=_FORMATS) as image:
            return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # convert() would clip 16-bit values to white: keep their upper half instead
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    if said and isinstance(error, OSError):
        return error.strerror or said  # its path is named beside it
    return f"{type(error).__name__}: {said}".removesuffix(": ")


def _walk(root: Path) -> Iterator[Path]:
    """Paths of images below `root`, relative to it, in the file system's order."""
    seen: set[str] = set()
    for folder, below, files in os.walk(root, followlinks=True, onerror=_unlistable):
        real = os.path.realpath(folder)
        if real in seen:  # a link back, or a second way to the same folder
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        here = Path(folder).relative_to(root)
        yield from (here / name for name in files if name.lower().endswith(SUFFIXES) and name[0] != ".")


def _unlistable(error: OSError) -> None:
    raise BadImages(
        f"cannot list {error.filename} ({error.strerror}). Change its permissions, or move it away."
    )


def _order(path: Path) -> tuple[tuple[str, str], ...]:
    """By folder, then name, letter by letter; accents count alike however the file system spells them."""
    return tuple((unicodedata.normalize("NFC", part), part) for part in path.parts)


def _labels(inside: list[Path]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """The class index of each path, and the classes by their first folder; none where a path has no folder."""
    if any(len(path.parts) == 1 for path in inside):
        return None, ()
    numbers = {name: index for index, name in enumerate(dict.fromkeys(path.parts[0] for path in inside))}
    return tuple(numbers[path.parts[0]] for path in inside), tuple(numbers)


def _words(root: Path, n_images: int, n_classes: int) -> str:
    """For example "1,000 images of 10 classes in cifar10_jpeg/test"."""
    images = f"{n_images:,} image{'s' * (n_images != 1)}"
    classes = f" of {n_classes:,} class{'es' * (n_classes != 1)}" if n_classes else ""
    return f"{images}{classes} in {'/'.join(root.resolve().parts[-2:])}"
