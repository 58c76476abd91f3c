"""How one image becomes one tensor: resize, crop, scale, normalize, and the same steps in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from bnprobe.errors import BnprobeError
from bnprobe.models.subject import Constants

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Size = int | tuple[int, int]
"""The side of a square, or height and width."""


@dataclass(frozen=True)
class CropAndScale:
    """Shorter side to `resize` pixels, center crop of `size`, scale to [0, 1], then (x - mean) / std.

    Where `size` is a height and a width, the whole image is resized to these, and nothing is cropped. An image whose
    shorter side is `resize` already is not resampled. One mean and one std make a single gray channel; three make
    RGB. The same steps as torchvision's classification presets, on public functions.
    """

    size: Size
    resize: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __post_init__(self) -> None:
        if min(self._sides) < 1:
            raise BnprobeError(f"size is {self.size}: give the side of the input in pixels, at least 1.")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3) or min(self.std) <= 0:
            raise BnprobeError(
                f"mean {_numbers(self.mean)} and std {_numbers(self.std)} do not go together: give three of "
                "each (red, green, blue) or one of each (gray), every std above zero."
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """The prepared image, (3, height, width) or (1, height, width), float32."""
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        to = self._sides if isinstance(self.size, tuple) else [self.resize]
        image = F.resize(image, to, interpolation=self.interpolation, antialias=True)
        values = F.convert_image_dtype(F.pil_to_tensor(F.center_crop(image, self._sides)), torch.float)
        normalized: Tensor = F.normalize(values, mean=list(self.mean), std=list(self.std))
        return normalized

    @property
    def _sides(self) -> list[int]:
        """One for a square, or height and width."""
        return list(self.size) if isinstance(self.size, tuple) else [self.size]

    @property
    def constants(self) -> Constants:
        """What is subtracted from a pixel in 0 to 1, and what it is then divided by."""
        return self.mean, self.std

    @property
    def words(self) -> str:
        """One readable sentence: what happens to an image, in order."""
        grey = "one gray channel, " if len(self.mean) == 1 else ""
        whole = isinstance(self.size, tuple)
        to, cropped = (self._sides, []) if whole else ([self.resize], self._sides)
        return grey + _steps(to, cropped, self.mean, self.std, self.interpolation)


@dataclass(frozen=True)
class Given:
    """What the user says about the inputs; None leaves a number as the model has it."""

    size: Size | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """Those that were given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def replacing(self, crop: CropAndScale) -> CropAndScale:
        """`crop` with the given numbers in place of its own; a given size is its `resize` as well."""
        resize = self.size if isinstance(self.size, int) else crop.resize
        return replace(crop, resize=resize, **self.numbers)


def preset_words(preset: Any) -> str:
    """What one of torchvision's presets does to an image, in order."""
    crop = getattr(preset, "crop_size", [])  # segmentation takes whole images
    return _steps(preset.resize_size, crop, preset.mean, preset.std, preset.interpolation)


def _steps(
    resize: Sequence[int],
    crop: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    how: InterpolationMode,
) -> str:
    side = f"shorter side to {resize[0]} px" if len(resize) == 1 else f"resized to {_by(resize)}"
    cropped = f", center crop of {_by(crop)}" if crop else ""
    return f"{side} ({how.value}){cropped}, scaled to [0, 1], mean {_numbers(mean)}, std {_numbers(std)}"


def _by(sides: Sequence[int]) -> str:
    """Width and height, as cameras' sizes are written."""
    return f"{sides[-1]} x {sides[0]}"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
