"""A user's own model by package.module:function, and what can go wrong in code that is not ours."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from support.checkpoints import same
from support.paths import DATA, ROOT

from bnprobe import models
from bnprobe.errors import UnknownModel
from bnprobe.models.image_folder import find_images

from .specimens import LINEAR, raised, share_right


def test_own_model_from_the_current_folder(own, picture):
    """Fails if the current folder is not importable, stays on the path, or the guess is not called one."""
    path = list(sys.path)
    subject = models.subject(f"{own(LINEAR)}:build")
    assert sys.path == path
    assert not subject.model.training
    assert subject.preprocess(picture).shape == (3, 224, 224)
    assert "(size, mean, std: a guess, the usual for ImageNet)" in subject.preprocess_words
    assert "(seed 0)" in subject.weights
    assert same(subject.model.state_dict(), models.subject(subject.name).model.state_dict())


def test_own_model_with_its_own_numbers(own, picture):
    subject = models.subject(f"{own(LINEAR)}:build", size=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    expected = models.CropAndScale(size=32, resize=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert torch.equal(subject.preprocess(picture), expected(picture))
    assert "guess" not in subject.preprocess_words


@pytest.mark.parametrize("text", ["import no_such_package", "def broken(:", "raise SystemExit(3)", "1 / 0"])
def test_own_module_that_cannot_be_imported(own, text):
    """Fails if what a user's module raises on import ends the program by itself."""
    raised(
        UnknownModel, r"cannot import .*Run in the folder that holds it, or install it", f"{own(text)}:build"
    )


def test_own_module_that_is_not_there():
    raised(UnknownModel, "No module named 'nowhere'.*Run in the folder that holds it", "nowhere.models:build")


def test_own_function_that_is_not_there(own):
    name = own(LINEAR)
    raised(UnknownModel, r'no function "biuld"\. Did you mean build\?', f"{name}:biuld")
    raised(UnknownModel, r'no function "zzz"\. Define it, without arguments', f"{name}:zzz")


def test_own_function_that_raises_says_where(own):
    name = own("def build():\n    raise ValueError('no\\nfile')\n")
    raised(UnknownModel, rf"ValueError: no file \(at {name}\.py:2\).*make it work alone", f"{name}:build")


def test_own_function_that_needs_arguments(own):
    name = own("def build(width):\n    return None\n")
    raised(UnknownModel, "missing 1 required positional argument.*called without arguments", f"{name}:build")


def test_own_function_that_returns_something_else(own):
    name = own("def build():\n    return {'model': 1}\n")
    raised(
        UnknownModel, "returned an object of type dict. Let it return the torch.nn.Module", f"{name}:build"
    )


def test_own_model_has_no_named_weights(own):
    raised(UnknownModel, "Use --checkpoint FILE", f"{own(LINEAR)}:build", weights="DEFAULT")


def test_real_checkpoint_classifies_real_images(monkeypatch):
    """Fails if the network, the loading or the preprocessing of the CIFAR checkpoint is wrong: 81% is known."""
    if not DATA.is_dir():
        pytest.skip(f"no real checkpoint: {DATA} is absent")
    monkeypatch.chdir(ROOT)
    subject = models.subject("scripts.cifar_resnet:resnet20", checkpoint=DATA / "cifar_resnet20.th", size=32)
    assert re.search(r"checkpoint cifar_resnet20\.th, sha256 12fca82f…", subject.weights)
    batches = find_images(DATA / "cifar10_jpeg/test").batches(subject.preprocess, 100, limit=500)
    assert 0.76 <= share_right(subject, batches) <= 0.86


def test_own_model_given_as_the_model_itself(own):
    """Fails if a module in the place of a function is called, without input."""
    name = own("from torch import nn\nnet = nn.Sequential(nn.BatchNorm2d(3))\n")
    subject = models.subject(f"{name}:net")
    assert [type(module).__name__ for module in subject.model] == ["BatchNorm2d"]
