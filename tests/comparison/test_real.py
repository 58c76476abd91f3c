"""A real network, real images: corruptions, modes, a planted fault, halves of the same images, fine-tuning."""

from __future__ import annotations

import copy
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter
from support.paths import DATA, ROOT
from torch import Tensor, nn

import bnprobe
from bnprobe import models
from bnprobe.comparison.result import Comparison
from bnprobe.comparison.significance import mean_test, scale_test
from bnprobe.comparison.spread import spread, unit
from bnprobe.models.image_folder import demo_images
from bnprobe.recording import LayerRecord, Recording
from bnprobe.stats import ImageMoments, Moments

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the folder of real inputs is absent: {DATA}")

Change = Callable[[Image.Image], Image.Image]


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=20)
    return Image.open(file).convert("RGB")


CORRUPTIONS: dict[str, Change] = {
    "blur": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "jpeg": compressed,
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.6),
}


@pytest.fixture(scope="module")
def subject() -> models.Subject:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        checkpoint = DATA / "cifar_resnet20.th"
        return models.subject("scripts.cifar_resnet:resnet20", checkpoint=checkpoint, size=32)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """200 of the test images, twenty per class."""
    return sorted((DATA / "cifar10_jpeg" / "test").rglob("*.jpg"))[::5]


def batches(subject: models.Subject, files: list[Path], change: Change = lambda image: image) -> list[Tensor]:
    images = [subject.preprocess(change(Image.open(path).convert("RGB"))) for path in files]
    return list(torch.stack(images).split(50))


@pytest.fixture(scope="module")
def clean(subject: models.Subject, files: list[Path]) -> Recording:
    return bnprobe.record(subject.model.eval(), batches(subject, files))


@needs_data
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_come_in_at_the_first_norm_and_are_sure(name, subject, files, clean):
    """Fails if a corruption that halves the accuracy is lost in the noise, or the weights are blamed."""
    other = bnprobe.record(subject.model.eval(), batches(subject, files, CORRUPTIONS[name]))
    found = bnprobe.compare(clean, other)
    assert "The norms store the same values on both sides." in found.answer[1]
    assert "images or the weights feeding it differ" in found.answer[1]
    sure = found.channels["pre_changed"].mean()
    assert sure > {"blur": 0.9, "jpeg": 0.2, "brightness": 0.6}[name]
    if name == "jpeg":  # quality 20 after quality 75: everything moves, nothing far
        assert found.opens is None
    else:
        assert found.opens is not None
        assert found.opens.gap > 3 * found.opens.noise
    if name == "brightness":
        assert (found.opens.layer, found.opens.aspect) == ("bn1", "pre")
    if name == "blur":
        assert found.channels["pre_ratio"].median() < 0.9


@needs_data
def test_between_modes_nothing_is_wrong_with_a_healthy_network(subject, files, clean):
    """Fails if mildly compressed images are called a gap between modes, or the first norm's inputs differ."""
    train = bnprobe.record(copy.deepcopy(subject.model).train(), batches(subject, files))
    found = bnprobe.compare(clean, train)
    assert found.opens is None
    assert found.layers["pre_gap"][0] < 1e-5
    assert "both sides saw the same images. 19 norms used running statistics on one side" in found.answer[1]


@needs_data
@pytest.mark.parametrize("planted", ["layer1.1.bn2", "layer2.1.bn1", "layer3.2.bn1"])
def test_between_modes_the_planted_norm_is_named(planted, subject, files):
    """Fails if the gap that mild compression makes everywhere is taken for the one that was planted."""
    model = copy.deepcopy(subject.model)
    norm = model.get_submodule(planted)
    norm.running_mean += 2 * norm.running_var.sqrt()
    sides = [bnprobe.record(model.train(mode), batches(subject, files)) for mode in (False, True)]
    found = bnprobe.compare(*sides)
    assert found.opens is not None
    assert (found.opens.layer, found.opens.aspect) == (planted, "post")


# Calibration


def rows_of_images(subject: models.Subject, files: list[Path]) -> dict[str, Moments]:
    """Moments of each image's own values before each norm, shape (N, C), by numpy."""
    rows: dict[str, list[Moments]] = {}
    model = copy.deepcopy(subject.model).eval()
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, args, name=name: rows.setdefault(name, []).append(
                    Moments.of(args[0].flatten(2).double().numpy(), axis=2)
                )
            )
    with torch.no_grad():
        for x in batches(subject, files):
            model(x)
    return {name: Moments.concatenate(parts) for name, parts in rows.items()}


def side(record: LayerRecord, rows: Moments, images: Any) -> LayerRecord:
    """The record of some of the images."""
    each = Moments(*(getattr(rows, field.name)[images] for field in dataclasses.fields(Moments)))
    spread = ImageMoments.of(each, record.pre_images.origin)
    return dataclasses.replace(record, pre=each.pool(), pre_images=spread, n_images=len(images))


@needs_data
@pytest.mark.slow
def test_halves_of_real_images_do_not_differ(subject, clean, rng):
    """Fails if errors are too small for real images: of p values below 0.05 there are 5%, within a factor of 1.5.

    Channels of one network go together, so 20 splits into halves of 500 are 20 observations, not 20 * 688.
    """
    everything = sorted((DATA / "cifar10_jpeg" / "test").rglob("*.jpg"))
    rows = rows_of_images(subject, everything)
    low: dict[str, list[float]] = {"mean": [], "scale": []}
    for _ in range(20):
        order = rng.permutation(len(everything))
        for record in clean.layers:
            a, b = (spread(side(record, rows[record.layer], half), "pre") for half in np.split(order, 2))
            low["mean"].append(float(np.mean(mean_test(a, b, unit(a, b, "pre"))[1] < 0.05)))
            low["scale"].append(float(np.mean(scale_test(a, b)[1] < 0.05)))
    assert 0.03 < np.mean(low["mean"]) < 0.075
    assert 0.03 < np.mean(low["scale"]) < 0.075


# Fine-tuning


def tuned(model: nn.Module, images: Tensor, labels: Tensor, norms_frozen: bool = False) -> nn.Module:
    """A few steps of fine-tuning of the last third of the demo network."""
    model = copy.deepcopy(model).train()
    names = dict(model.named_modules())
    first = [name for name in names if name.startswith("features.")][2 * len(names) // 3]
    number = int(first.split(".")[1])
    trained = [
        p for name, p in model.named_parameters()
        if not name.startswith("features.") or int(name.split(".")[1]) >= number
    ]  # fmt: skip
    for name, module in names.items():
        early = name.startswith("features.") and int(name.split(".")[1]) < number
        if isinstance(module, nn.BatchNorm2d) and (early or norms_frozen):
            module.eval()
    optimizer = torch.optim.SGD(trained, lr=0.05, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.first_trained = number
    return model.eval()


def demo() -> tuple[nn.Module, Tensor, Tensor]:
    subject = models.demo()
    batch = next(iter(demo_images().batches(subject.preprocess, 64)))
    images = torch.stack(batch.images)
    labels = (torch.tensor(batch.labels) + 3) % 10  # another task
    return subject.model, images, labels


def compared(a: nn.Module, b: nn.Module, images: Tensor) -> Comparison:
    return bnprobe.compare(bnprobe.record(a, [images]), bnprobe.record(b, [images]))


def test_fine_tuning_shows_where_it_began():
    """Fails if layers that were frozen are called different, or the first trained block is not named."""
    model, images, labels = demo()
    after = tuned(model, images, labels)
    found = compared(model, after, images)
    number = [int(layer.split(".")[1]) for layer in found.layers["layer"]]
    frozen = found.layers[[n < after.first_trained for n in number]]
    assert len(frozen)
    assert frozen["identical"].all()
    assert f"features.{after.first_trained}." in found.answer[0].partition(", where")[0]
    assert (found.layers["affine_gap"][[n >= after.first_trained for n in number]] > 0).all()
    assert not {"statistics-outdated", "frozen-statistics-moved"} & set(found.findings["rule"])


def test_fine_tuning_over_frozen_statistics_is_said():
    """Fails if new weights over old statistics pass, by the files of weights alone."""
    model, images, labels = demo()
    found = bnprobe.compare(model.state_dict(), tuned(model, images, labels, norms_frozen=True).state_dict())
    assert set(found.findings["rule"]) == {"statistics-outdated", "tensors-differ"}
    assert set(found.findings.loc[found.findings["severity"] != "info", "rule"]) == {"statistics-outdated"}


def test_a_pass_in_train_mode_moves_statistics_that_should_stay():
    """Fails if a forgotten eval() goes unseen: no gradient, and yet the buffers move."""
    model, images, _ = demo()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for _ in range(20):
            model.train()(images[:, :, ::2, ::2])
    found = bnprobe.compare(before, model.state_dict())
    assert set(found.findings["rule"]) == {"frozen-statistics-moved"}
    assert "num_batches_tracked went from" in found.findings["because"][0]
