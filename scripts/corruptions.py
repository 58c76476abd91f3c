"""Five corruptions of images at five strengths, after Hendrycks & Dietterich 2019 (arXiv:1903.12261), the CIFAR-10-C kind.

Written from the paper's definitions, with the strengths published for images of 32 x 32. Two differ from the published
code: fog is made of smooth random fields of halving scales instead of the diamond-square fractal, and brightness is added to
the largest of red, green and blue (the V of HSV) by scaling all three, which keeps hue and saturation.

Images are (N, 3, H, W), float, 0 to 1, and so is what comes out. Everything random is drawn from `generator`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

STRENGTHS = (1, 2, 3, 4, 5)

NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)
"""Standard deviation of Gaussian noise."""
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)
"""Standard deviation of the Gaussian filter, pixels."""
FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
"""Weight of the fog, and by what its structure fades from one scale to the next finer one."""
BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
"""Added to V."""
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
"""What is left of the distance from the image's mean color."""


def noise(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Independent Gaussian noise on every value."""
    drawn = torch.randn(images.shape, generator=generator)
    return (images + NOISE[strength - 1] * drawn).clamp(0, 1)


def blur(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """A Gaussian filter; beyond the border the nearest pixel is repeated."""
    sigma = BLUR[strength - 1]
    reach = max(int(4 * sigma + 0.5), 1)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    kernel = (taps[:, None] * taps).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(images, (reach,) * 4, mode="replicate"), kernel, groups=3).clamp(0, 1)


def fog(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """A smooth random field from 0 to 1, one per image, is added, and the sum scaled so that no light is gained."""
    weight, fading = FOG[strength - 1]
    n, _, height, width = images.shape
    field, size, amplitude = torch.zeros(n, 1, height, width), 2, 1.0
    while size <= max(height, width):
        coarse = torch.rand(n, 1, size, size, generator=generator)
        field = field + amplitude * F.interpolate(
            coarse, (height, width), mode="bilinear", align_corners=True
        )
        size, amplitude = 2 * size, amplitude / fading
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    most = images.amax((1, 2, 3), keepdim=True)
    return ((images + weight * (field - low) / (high - low)) * most / (most + weight)).clamp(0, 1)


def brightness(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """The largest of red, green and blue grows by a constant, up to 1; black pixels become gray."""
    value = images.amax(1, keepdim=True)
    brighter = (value + BRIGHTNESS[strength - 1]).clamp(max=1)
    return torch.where(value > 0, images * brighter / value.clamp_min(1e-12), brighter)


def contrast(images: Tensor, strength: int, generator: Generator) -> Tensor:
    """Every value moves towards the mean of its color over the image."""
    mean = images.mean((2, 3), keepdim=True)
    return (mean + CONTRAST[strength - 1] * (images - mean)).clamp(0, 1)


CORRUPTIONS: dict[str, Callable[[Tensor, int, Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
}


def corrupted(images: Tensor, name: str, strength: int, seed: int) -> Tensor:
    """Images with a corruption, the same for the same seed; strength 0 leaves them as they are."""
    if strength == 0:
        return images
    return CORRUPTIONS[name](images, strength, torch.Generator().manual_seed(seed))
