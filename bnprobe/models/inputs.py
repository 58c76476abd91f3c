"""How images become the inputs of a model: by torchvision's task, or by the usual guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from bnprobe.errors import BnprobeError
from bnprobe.models.preprocessing import CropAndScale, Given, preset_words
from bnprobe.models.subject import Constants, Recipe
from bnprobe.recording.names import GUESSED


def recipe(name: str, task: str, entry: Any, given: Given) -> Recipe:
    """Preprocessing and inputs for the weights `entry` of a torchvision model.

    `task` is the module of torchvision.models that builds it: detection, video, ..., any other classifies.
    """
    if task not in _TASKS:
        return _classification(entry, given)
    if given.numbers:
        raise BnprobeError(
            f"{name} does not take {', '.join(given.numbers)}: only classification models and your own do. "
            f"Leave {'it' if len(given.numbers) == 1 else 'them'} out."
        )
    return _TASKS[task](entry)


def guess(given: Given) -> Recipe:
    """For a model that says nothing about its inputs: what the user says about them, else the usual."""
    crop = given.replacing(CropAndScale(size=224, resize=224))
    guessed = [key for key in ("size", "mean", "std") if key not in given.numbers]
    note = f" ({', '.join(guessed)}: {GUESSED})" if guessed else ""
    return Recipe(crop, crop.words + note, normalize=crop.constants)


def _classification(entry: Any, given: Given) -> Recipe:
    preset = entry.transforms()
    if not given.numbers:
        return Recipe(preset, preset_words(preset), normalize=_constants(preset))
    (size,), (resize,) = preset.crop_size, preset.resize_size
    own = CropAndScale(size, resize, tuple(preset.mean), tuple(preset.std), preset.interpolation)
    crop = given.replacing(own)
    words = f"{crop.words} ({', '.join(given.numbers)} as given)"
    return Recipe(crop, words, normalize=crop.constants)


def _constants(preset: Any) -> Constants:
    """What one of torchvision's presets subtracts and divides by."""
    return tuple(preset.mean), tuple(preset.std)


def _segmentation(entry: Any) -> Recipe:
    preset = entry.transforms()
    (side,) = preset.resize_size

    def square(image: Image.Image) -> Tensor:
        whole: Tensor = F.center_crop(preset(image), [side, side])
        return whole

    words = f"{preset_words(preset)}; then center crop of {side} x {side}, so that any shapes stack"
    return Recipe(square, words, normalize=_constants(preset))


def _detection(entry: Any) -> Recipe:
    return Recipe(
        entry.transforms(),
        "scaled to [0, 1]; the model itself resizes and normalizes",
        lambda images: (images,),
        "a list of whole images, as detection models expect",
    )


def _video(entry: Any) -> Recipe:
    preset = entry.transforms()
    frames = entry.meta.get("min_temporal_size", 16)

    def frame(image: Image.Image) -> Tensor:
        still: Tensor = preset(F.pil_to_tensor(image)[None])[:, 0]
        return still

    def clip(images: list[Tensor]) -> tuple[Any, ...]:
        return (torch.stack(images)[:, :, None].repeat(1, 1, frames, 1, 1),)

    words = f"each still image repeated into a clip of {frames} frames: nothing moves, unlike in training"
    return Recipe(frame, preset_words(preset), clip, words, _constants(preset))


def _optical_flow(entry: Any) -> Recipe:
    # entry.transforms() takes pairs of any size; RAFT takes sides of at least 128 that 8 divides
    half = (0.5, 0.5, 0.5)
    crop = CropAndScale(size=256, resize=256, mean=half, std=half)

    def pairs(images: list[Tensor]) -> tuple[Any, ...]:
        first = torch.stack(images)
        if len(images) == 1:
            return first, first.roll((8, 8), dims=(-2, -1))
        return first, first.roll(-1, dims=0)

    words = "each image paired with the next of its batch (a single one with itself, shifted by 8 px): no real motion"
    return Recipe(crop, crop.words, pairs, words, crop.constants)


_TASKS: dict[str, Callable[[Any], Recipe]] = {
    "segmentation": _segmentation,
    "detection": _detection,
    "video": _video,
    "optical_flow": _optical_flow,
}
