"""Each kind of torchvision's models takes the inputs that are made for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bnprobe import models
from bnprobe.errors import BnprobeError

from .specimens import TINY, raised


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("googlenet", [(2, 3, 224, 224)]),
        ("inception_v3", [(2, 3, 299, 299)]),
        ("vit_b_32", [(2, 3, 224, 224)]),
        ("quantized_shufflenet_v2_x0_5", [(2, 3, 224, 224)]),
        ("raft_small", [(2, 3, 256, 256)] * 2),
        ("s3d", [(2, 3, 14, 224, 224)]),
        ("lraspp_mobilenet_v3_large", [(2, 3, 520, 520)]),
    ],
)
def test_every_kind_of_model_takes_its_inputs(name, shape, picture):
    """Fails if a kind of model gets inputs it refuses, or images of two shapes cannot share a batch."""
    subject = models.subject(name)
    inputs = subject.to_inputs(
        [subject.preprocess(picture), subject.preprocess(picture.rotate(90, expand=True))]
    )
    assert [tuple(part.shape) for part in inputs] == shape
    with torch.no_grad():
        subject.model(*inputs)


def test_detection_takes_a_list_of_whole_images(picture):
    """Fails if detection images are stacked or cropped, or their backbone is downloaded."""
    subject = models.subject("ssdlite320_mobilenet_v3_large")
    images = [subject.preprocess(picture), subject.preprocess(picture.resize((90, 70)))]
    (inputs,) = subject.to_inputs(images)
    assert [tuple(image.shape) for image in inputs] == [(3, 200, 300), (3, 70, 90)]
    with torch.no_grad():
        assert len(subject.model(inputs)) == 2
    assert "list of whole images" in subject.inputs_words


def test_clip_repeats_one_frame(picture):
    """Fails if the repeated axis is not time, or frames of different images mix."""
    subject = models.subject("r3d_18")
    first, second = subject.preprocess(picture), subject.preprocess(picture.rotate(180))
    (clip,) = subject.to_inputs([first, second])
    assert clip.shape == (2, 3, 16, 112, 112)
    assert all(torch.equal(clip[0, :, frame], first) for frame in range(16))
    assert torch.equal(clip[1, :, 5], second)
    assert "clip of 16 frames" in subject.inputs_words


def test_clip_frames_are_prepared_as_torchvision_prepares_videos(picture):
    """Fails if a frame goes through anything but the weights' own video transforms."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    expected = torchvision.models.video.R3D_18_Weights.DEFAULT.transforms()(pixels[None])
    assert torch.equal(models.subject("r3d_18").preprocess(picture), expected[:, 0])


def test_flow_pairs_each_image_with_the_next(picture):
    """Fails if an image is paired with itself, which flow models see as no motion at all."""
    subject = models.subject("raft_small")
    images = [subject.preprocess(picture.rotate(angle)) for angle in (0, 90, 180)]
    first, second = subject.to_inputs(images)
    assert torch.equal(first, torch.stack(images))
    assert torch.equal(second, torch.stack([images[1], images[2], images[0]]))
    alone, moved = subject.to_inputs(images[:1])
    assert torch.equal(moved[..., 8:, 8:], alone[..., :-8, :-8])
    assert not torch.equal(moved, alone)
    assert first.min() >= -1
    assert first.max() <= 1


@pytest.mark.parametrize("name", ["resnet50", TINY])
def test_preprocessing_is_the_default_weights_own(name, picture):
    """Fails if random weights get other preprocessing than the default weights (232 px, not 256, for resnet50)."""
    subject = models.subject(name)
    transforms = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert torch.equal(subject.preprocess(picture), transforms(picture))
    assert f"{transforms.resize_size[0]} px" in subject.preprocess_words
    assert "mean (0.485, 0.456, 0.406)" in subject.preprocess_words
    assert subject.inputs_words == ""


def test_changed_numbers_replace_the_weights_own(picture):
    """Fails if an override is dropped, or drags the other numbers to the general guess."""
    subject = models.subject("resnet50", size=160, mean=(0.5, 0.4, 0.3))
    expected = models.CropAndScale(size=160, resize=160, mean=(0.5, 0.4, 0.3))
    assert torch.equal(subject.preprocess(picture), expected(picture))
    assert "160 x 160" in subject.preprocess_words
    assert "(size, mean as given)" in subject.preprocess_words


def test_changed_numbers_are_refused_where_the_model_sets_them():
    raised(BnprobeError, "raft_small does not take size: only.*Leave it out", "raft_small", size=64)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("squeezenet1_1", {}, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("squeezenet1_1", {"mean": (0.1, 0.2, 0.3)}, ((0.1, 0.2, 0.3), (0.229, 0.224, 0.225))),
        ("s3d", {}, ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))),
        ("raft_small", {}, ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))),
        ("lraspp_mobilenet_v3_large", {}, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
        ("ssdlite320_mobilenet_v3_large", {}, None),
    ],
)
def test_a_subject_knows_what_its_preprocessing_subtracts_and_divides_by(name, given, expected, picture):
    """Fails if the constants that are told are not those that are applied: a black picture shows them."""
    subject = models.subject(name, **given)
    assert subject.normalize == expected
    if expected is None:
        return
    black = subject.preprocess(Image.new("RGB", picture.size))
    for channel, (mean, std) in enumerate(zip(*expected, strict=True)):
        np.testing.assert_allclose(black[channel], -mean / std, rtol=1e-5)
