"""What a subject is: a model, the origin of its weights, and the way from images to its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

SEED = 0

Preprocess = Callable[[Image.Image], Tensor]
ToInputs = Callable[[list[Tensor]], tuple[Any, ...]]
Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and std per channel of an input that is (pixel - mean) / std of pixels in 0 to 1."""


def stack(images: list[Tensor]) -> tuple[Any, ...]:
    """The inputs of a model that takes one batch of images of one shape."""
    return (torch.stack(images),)


class Recipe(NamedTuple):
    """The last five fields of a `Subject`: how images become its inputs, and that in words."""

    preprocess: Preprocess
    preprocess_words: str
    to_inputs: ToInputs = stack
    inputs_words: str = ""
    normalize: Constants | None = None


@dataclass(frozen=True)
class Subject:
    """A model in eval mode, where its weights are from, and how images become its inputs.

    `preprocess` maps one RGB image to one tensor, `to_inputs` a list of these to the positional arguments
    of `model.forward`. `inputs_words` names a substitution made there (a still image repeated into a clip)
    and is empty where images are only stacked. `normalize` is what the preprocessing subtracts and divides
    by, None where the model does that itself. `classes` are their names, where the weights tell them.
    """

    model: nn.Module = field(repr=False)
    name: str
    weights: str
    preprocess: Preprocess
    preprocess_words: str
    to_inputs: ToInputs = stack
    inputs_words: str = ""
    normalize: Constants | None = None
    classes: tuple[str, ...] = ()


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers from a fixed seed inside, and the caller's own again afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)  # not torch.manual_seed: that would seed every GPU as well
        yield
