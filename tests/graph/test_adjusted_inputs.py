"""Models that normalize what they are called with: the first norm still shows what their inputs are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bnprobe
from bnprobe.measures.causes import preprocessing
from bnprobe.recording import Recording
from bnprobe.recording.neighbours import Stem

MEAN, STD = torch.tensor([0.43, 0.39, 0.38]).view(3, 1, 1), torch.tensor([0.23, 0.22, 0.21]).view(3, 1, 1)
NOISE = torch.rand(24, 3, 16, 16)
Change = Callable[[Tensor], Tensor]


class Net(nn.Module):
    """A convolution and its norm, after `change` of the input."""

    def __init__(self, change: Change | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 16, 5, 2, bias=False), nn.BatchNorm2d(16)
        self.change = change
        self.register_buffer("mean", MEAN)
        self.register_buffer("std", STD)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(
            self.conv((x - self.mean) / self.std if self.change is None else self.change(x))
        )
        return found


def in_place(x: Tensor) -> Tensor:
    """As torchvision's normalize."""
    return x.clone().sub_(MEAN).div_(STD)


def pixels(n: int = 24) -> Tensor:
    """From 0 to 1, (n, 3, 16, 16)."""
    light = nn.functional.interpolate(torch.rand(n, 1, 4, 4), size=16, mode="bilinear")
    return (0.1 + 0.3 * torch.rand(n, 3, 1, 1) + 0.5 * light + 0.02 * torch.randn(n, 3, 16, 16)).clamp(0, 1)


def seen(model: nn.Module, x: Tensor) -> Recording:
    return bnprobe.record(model.eval(), [x])


def stem(model: nn.Module, x: Tensor) -> Stem | None:
    around = seen(model, x).layers[0].neighbours
    assert around is not None
    return around.stem


@pytest.mark.parametrize(
    "change",
    [
        None,
        in_place,
        lambda x: 2 * x - 1,
        lambda x: x / 255,
        lambda x: (x + MEAN) * 0.5,
        lambda x: x - torch.tensor(0.4),
    ],
    ids=["buffers", "in place", "numbers", "a number", "constants", "a tensor of one number"],
)
def test_constants_are_walked_through(change: Change | None) -> None:
    """Fails if the weights that take the input are not found after what every model does to its images."""
    plain, found = stem(Net(lambda x: x), pixels()), stem(Net(change), pixels())
    assert plain is not None
    assert found is not None
    np.testing.assert_array_equal(found.matrix, plain.matrix)
    assert found.adjusted
    assert not plain.adjusted


def test_whole_numbers_that_become_pixels_in_the_model_do_too() -> None:
    """Fails if a cast between the input and its division hides it."""
    found = stem(Net(lambda x: x.float() / 255), (255 * pixels()).byte())
    assert found is not None
    assert found.adjusted


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x / x.amax(),
        lambda x: x * NOISE,
        lambda x: 1 / (x + 1),
        lambda x: 0.5 - x.relu().neg().exp(),
        lambda x: MEAN / (x + 1),
    ],
    ids=["its own largest", "noise", "its inverse", "an exponential", "divided by the input"],
)
def test_what_is_no_constant_is_not(change: Change) -> None:
    """Fails if the mean that the weights take is thought to be that of the input where another map made it."""
    assert stem(Net(change), pixels()) is None


@pytest.mark.parametrize(
    ("wrong", "mistake"),
    [
        (lambda x: 255 * x, "pixels of 0 to 255 were normalized without scaling them to 0 to 1"),
        (lambda x: (x - MEAN) / STD, "inputs were normalized twice"),
    ],
    ids=["not scaled", "twice"],
)
def test_mistakes_before_a_model_that_normalizes(wrong: Change, mistake: str) -> None:
    """Fails if the mistake is not named, or code is given that would act before the model's own constants."""
    torch.manual_seed(1)
    model = Net().train()
    for _ in range(60):
        model(pixels())
    assert preprocessing(seen(model, pixels(200))).empty
    found = preprocessing(seen(model, wrong(pixels(200))))
    named = "; ".join([*found["mistake"], *found["also"]])
    assert mistake in named
    assert not found["undo"].any()
