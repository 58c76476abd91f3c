"""One picture to one tensor: against torchvision-free arithmetic, and numbers that make no sense."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from bnprobe import models
from bnprobe.errors import BnprobeError

from .specimens import LINEAR, TINY, raised


def test_crop_and_scale_agrees_with_a_slow_reference(picture):
    """Fails if resize, crop, scale or normalization happen in another order or to another size."""
    crop = models.CropAndScale(size=96, resize=100, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    resized = picture.resize((150, 100), Image.Resampling.BILINEAR).crop((27, 2, 123, 98))
    expected = (np.array(resized) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2.0]
    np.testing.assert_allclose(crop(picture).permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_image_of_the_right_size_is_not_resampled(picture):
    """Fails if a 32 x 32 image is filtered on its way to 32 x 32."""
    image = picture.resize((32, 32))
    values = models.CropAndScale(size=32, resize=32, mean=(0, 0, 0), std=(1, 1, 1))(image)
    assert torch.equal((values * 255).round().byte().permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_one_mean_makes_one_grey_channel(picture, own):
    subject = models.subject(f"{own(LINEAR)}:build", size=28, mean=(0.5,), std=(0.5,))
    assert subject.preprocess(picture).shape == (1, 28, 28)
    assert subject.preprocess_words.startswith("one gray channel")


@pytest.mark.parametrize(
    "numbers",
    [{"mean": (0.5,)}, {"std": (1, 1, 0)}, {"mean": (0.1, 0.2), "std": (1, 1)}, {"std": (-1, 1, 1)}],
)
def test_numbers_that_do_not_go_together_are_refused(numbers):
    raised(BnprobeError, "give three of each.*or one of each", TINY, **numbers)


def test_size_must_be_positive():
    raised(BnprobeError, "side of the input in pixels, at least 1", TINY, size=0)
