"""What python -m scripts.zoo tries: how each architecture is built with random weights, and its smallest inputs.

An entry has several sizes, smallest first: the first that both an evaluation and a training step accept is
taken. Nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torchvision import models

SIZES = (32, 64, 96, 128, 160, 192, 224)
"""Sides in px that are tried: strides of 32 leave one position at the first."""

ON_META = ("regnet_y_128gf", "vit_h_14")
"""More than 600 million parameters: built on the meta device, without memory, and attached to only."""


@dataclass(frozen=True)
class Call:
    """The arguments of one forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None

    def of(self, model: nn.Module) -> Any:
        return model(*self.args, **(self.kwargs or {}))


@dataclass(frozen=True)
class Entry:
    """One architecture. `build` takes a size; `call` a size and whether it is for a training step."""

    name: str
    library: str
    family: str
    build: Callable[[int], nn.Module]
    call: Callable[[int, bool], Call]
    sizes: tuple[int, ...] = SIZES
    not_trained: str = ""
    on_meta: bool = False

    def model(self, size: int) -> nn.Module:
        """In eval mode, with the same weights at every call; on the meta device where the entry says so."""
        with torch.random.fork_rng(devices=[]), _without_memory() if self.on_meta else nullcontext():
            torch.manual_seed(11)
            return self.build(size).eval()


def _without_memory() -> AbstractContextManager[Any]:
    """Parameters go to the meta device before their first number is written; `with torch.device("meta")` is
    not for builders that compute with tensors, as regnet's do."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta")))

    return mock.patch.object(nn.Module, "register_parameter", on_meta)


def torchvision_entries() -> list[Entry]:
    """All builders of torchvision.models."""
    return [_torchvision(name) for name in models.list_models()]


def _torchvision(name: str) -> Entry:
    builder = models.get_model_builder(name)
    family = builder.__module__.removeprefix("torchvision.models.")
    task = family.partition(".")[0]
    call, sizes = _CALLS.get(task, (images, SIZES))
    if name.startswith("ssd"):
        sizes = (300,) if "lite" not in name else (320,)  # fixed
    if "inception" in name:
        sizes = (299,)  # below, the auxiliary head's kernel is larger than what it sees in training
    return Entry(
        name,
        "torchvision",
        family,
        lambda size: builder(**_options(builder, size)),
        call,
        sizes[-1:] if name in ON_META else sizes,
        on_meta=name in ON_META,
    )


def _options(builder: Callable[..., nn.Module], size: int) -> dict[str, Any]:
    """No weights, the size where an architecture depends on it, and few proposals."""
    name, parameters = builder.__name__, inspect.signature(builder).parameters
    options: dict[str, Any] = {"weights": None, "progress": False}
    if "weights_backbone" in parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # theirs is drawn in Python, number by number
    if name.startswith("vit_"):
        patch = int(name.rpartition("_")[2])
        options["image_size"] = size - size % patch
    if ".detection." in builder.__module__ and not name.startswith("ssd"):
        options |= {"min_size": size, "max_size": size}
    if "rcnn" in name:
        options |= {"rpn_post_nms_top_n_train": 32, "rpn_post_nms_top_n_test": 32}
    return options


def images(size: int, training: bool) -> Call:
    return Call((noise(2, 3, size, size),))


def _detection(size: int, training: bool) -> Call:
    images = list(noise(2, 3, size, size))
    return Call((images, [_target(size) for _ in images]) if training else (images,))


def _target(size: int) -> dict[str, Tensor]:
    """One box with all that any detection model asks of it."""
    box = torch.tensor([[0.1, 0.1, 0.8, 0.7]]) * size
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[:, size // 8 : size // 2, size // 8 : size // 2] = 1
    points = torch.full((1, 17, 3), size / 2.0)
    return {"boxes": box, "labels": torch.tensor([1]), "masks": mask, "keypoints": points}


def _video(size: int, training: bool) -> Call:
    return Call((noise(1, 3, 16, size, size),))


def _flow(size: int, training: bool) -> Call:
    first = noise(1, 3, size, size)
    return Call((first, first.roll(3, dims=3)), {"num_flow_updates": 2})


def noise(*shape: int) -> Tensor:
    """The same numbers in 0 to 1 at every call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


_CALLS: dict[str, tuple[Callable[[int, bool], Call], tuple[int, ...]]] = {
    "detection": (_detection, SIZES[1:]),
    "video": (_video, SIZES),
    "optical_flow": (_flow, (128,)),
}
