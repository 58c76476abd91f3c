"""Folders of images to batches of tensors, and the shipped digits behind the same face.

A `Source` knows its images by number, in one fixed order; `Source.batches` prepares them, a batch at a time,
and keeps count of what could not be read: a damaged file is a fact to report, not the end of a run.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from bnprobe.errors import BadImages

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
# What a suffix promises is not what a file holds: only these decoders may try, none of which runs a program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
DEMO_DIGITS = Path(__file__).parent / "demo_data" / "held_out_digits.npz"

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Batch:
    """Prepared images and their class indices; `labels` is None where there are no classes."""

    images: list[Tensor]
    labels: list[int] | None


@dataclass(frozen=True)
class Unreadable:
    """An image that was left out, and why, in one line."""

    path: Path
    reason: str


class Source(ABC):
    """Images by number 0..len-1 in a fixed order, with class indices or without.

    `labels` has one index into `classes` per image, or is None. `words` says in one sentence what this is.
    """

    labels: tuple[int, ...] | None
    classes: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def words(self) -> str:
        """One sentence that describes the data."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """Where image `index` is, for naming it."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. May raise anything that a damaged file makes a decoder raise."""

    def batches(self, preprocess: Preprocess, batch_size: int, limit: int | None = None) -> Batches:
        """Prepared images in batches of `batch_size`; at most `limit` of them, evenly spread."""
        return Batches(self, preprocess, batch_size, spread(len(self), limit))


@dataclass(frozen=True)
class Batches:
    """A pass over some images of a source; every `iter` reads them anew.

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

    @property
    def n_images(self) -> int:
        """Images this pass will try to read."""
        return len(self.picked)

    @property
    def words(self) -> str:
        """What is read, in one sentence: all of the source, or which part of it."""
        if self.n_images == len(self.source):
            return self.source.words
        return f"{self.n_images:,} of {self.source.words}, evenly spread over their sorted order"

    def __iter__(self) -> Iterator[Batch]:
        """Full batches and a last, smaller one. Raises BadImages at the end if no image could be read."""
        self.unreadable.clear()
        pending: list[tuple[Tensor, int]] = []
        for index in self.picked:
            prepared = self._prepared(index)
            if prepared is not None:
                pending.append((prepared, index))
            if len(pending) == self.batch_size:
                yield self._batch(pending)
                pending = []
        if len(self.unreadable) == self.n_images:
            raise BadImages(self._nothing())
        if pending:
            yield self._batch(pending)

    def _prepared(self, index: int) -> Tensor | None:
        """Image `index` as a tensor; None, and a line in `unreadable`, where that fails."""
        try:
            return self.preprocess(self.source.image(index))
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
            self.unreadable.append(Unreadable(self.source.path(index), _reason(error)))
            return None

    def _batch(self, pending: list[tuple[Tensor, int]]) -> Batch:
        labels = self.source.labels
        return Batch(
            images=[image for image, _ in pending],
            labels=None if labels is None else [labels[index] for _, index in pending],
        )

    def _nothing(self) -> str:
        first = self.unreadable[0]
        return (
            f"none of {self.words} could be read; the first is {first.path} ({first.reason}). "
            "Check that they open in an image viewer."
        )


@dataclass(frozen=True)
class ImageFolder(Source):
    """The images under `root`, sorted; labels by first-level sub-folder, None when some lie in `root` itself."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def words(self) -> str:
        """For example "1,000 images of 10 classes in cifar10_jpeg/test"."""
        kinds = f" of {_count(len(self.classes), 'class', 'classes')}" if self.classes else ""
        place = "/".join(self.root.resolve().parts[-2:])
        return f"{_count(len(self), 'image', 'images')}{kinds} in {place}"

    def path(self, index: int) -> Path:
        """Where image `index` is."""
        return self.paths[index]

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB."""
        return read_rgb(self.paths[index])


@dataclass(frozen=True)
class DemoImages(Source):
    """The held-out handwritten digits that come with bnprobe, 8 x 8 grey values each."""

    pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] = tuple("0123456789")

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def words(self) -> str:
        """What stands in when no folder was given."""
        n = _count(len(self), "handwritten digit", "handwritten digits")
        return f"{n} of 10 classes, 8 x 8 px, shipped with bnprobe (scikit-learn's, held out from training)"

    def path(self, index: int) -> Path:
        """The file all digits are in, and the number of this one."""
        return DEMO_DIGITS / str(index)

    def image(self, index: int) -> Image.Image:
        """Digit `index` in RGB, all three channels alike."""
        return Image.fromarray(self.pixels[index]).convert("RGB")


def find_images(folder: Path | str) -> ImageFolder:
    """Every image under `folder`, in the same order on every file system.

    Sub-folders of the first level are classes, numbered in sorted order. Hidden names are passed over,
    links to folders followed once. Raises BadImages if there is no folder, or no image in it.
    """
    root = Path(folder)
    if not root.exists():
        raise BadImages(f"there is no folder {root}. Check --data.")
    if not root.is_dir():
        raise BadImages(f"{root} is a file. Give the folder it is in, with one sub-folder per class or none.")
    inside = sorted(_walk(root), key=_order)
    if not inside:
        raise BadImages(f"no images in {root} or below it. Looked for files ending in {' '.join(SUFFIXES)}.")
    paths = tuple(root / path for path in inside)
    if any(len(path.parts) == 1 for path in inside):
        return ImageFolder(root, paths, None, ())
    classes = tuple(dict.fromkeys(path.parts[0] for path in inside))
    number = {name: index for index, name in enumerate(classes)}
    return ImageFolder(root, paths, tuple(number[path.parts[0]] for path in inside), classes)


def demo_images() -> DemoImages:
    """The digits held out when the shipped model was trained: the data when no folder is given."""
    with np.load(DEMO_DIGITS, allow_pickle=False) as file:
        return DemoImages(file["images"], tuple(map(int, file["labels"])))


def spread(n: int, limit: int | None) -> tuple[int, ...]:
    """`limit` of the numbers 0..n-1, evenly spread, always the same; all of them where `limit` is None."""
    if limit is not None and limit < 1:
        raise BadImages(f"the limit is {limit} images. Give at least 1, or leave it out for all {n:,}.")
    if limit is None or limit >= n:
        return tuple(range(n))
    return tuple((2 * i + 1) * n // (2 * limit) for i in range(limit))  # the middle of each of `limit` parts


def read_rgb(path: Path) -> Image.Image:
    """The whole image in `path`, in RGB. Raises what the decoder raises, and for anything that is no file."""
    if path.exists() and not path.is_file():
        raise OSError("not a regular file")  # opening a pipe would wait for ever
    Image.init()  # until then PIL knows five formats, and a name it does not know is a KeyError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=_FORMATS) as image:
            return _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # convert() would clip 16-bit values to white: keep their upper half instead
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    return (
        said if said and isinstance(error, OSError) else f"{type(error).__name__}: {said}".removesuffix(": ")
    )


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
        yield from (here / name for name in files if _is_image_name(name))


def _unlistable(error: OSError) -> None:
    raise BadImages(
        f"cannot look into {error.filename} ({error.strerror}). Change its rights, or move it away."
    )


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _order(path: Path) -> tuple[tuple[str, str], ...]:
    """By folder, then name, letter by letter; accents count alike however the file system spells them."""
    return tuple((unicodedata.normalize("NFC", part), part) for part in path.parts)


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
