"""What a model takes, and what it makes of it: shape, range of pixels, classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bnprobe.errors import BnprobeError, class_name, said
from bnprobe.experiments.outputs import deciding
from bnprobe.experiments.synthesize.stored import Stored
from bnprobe.norms import ModuleTree
from bnprobe.norms.module_tree import method, parameters_of
from bnprobe.probe.tensors import first_tensor
from bnprobe.report.numbers import count

Shape = tuple[int, ...]
Constants = tuple[Sequence[float], Sequence[float]]

GRAY = ((0.5,), (0.25,))
"""Mean and std of pixels where nothing is known about them."""

SIDES = (32, 224, 28, 64, 96, 128)
"""Sides of images, the usual ones first."""
ROOM = 16
"""Positions that the deepest norm must see: an image that is smaller there has no shape."""

SMALL_SIDE = 32
"""Pixels that the side of an image has at least while images are made smaller."""

LARGEST = 2**22
"""Numbers of one input: a photograph of 1,000 pixels by side has 3 million."""


@dataclass(frozen=True)
class Inputs:
    """Pixels of 0 to 1 become inputs as (pixel - mean) / std; `bounded` where that range is known."""

    shape: Shape
    mean: Tensor
    std: Tensor
    bounded: bool
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.mean.device

    def of(self, pixels: Tensor) -> Tensor:
        """What the model is given."""
        return ((pixels - self.mean) / self.std).to(self.dtype)

    def pixels(self, x: Tensor) -> Tensor:
        """The reverse."""
        return x.to(self.device, torch.float32) * self.std + self.mean

    def like(self, parameter: Tensor | None, normalize: Constants | None) -> Inputs:
        """For another network: on the device and in the type of its parameter, by its own mean and std if they differ."""
        mean, std = (self.mean, self.std) if normalize is None else _constants(normalize, self.shape)
        device = self.device if parameter is None else parameter.device
        dtype = self.dtype if parameter is None or not parameter.is_floating_point() else parameter.dtype
        return replace(self, mean=mean.to(device), std=std.to(device), dtype=dtype)

    def valid(self, pixels: Tensor) -> Tensor:
        """Clamped, where the range is known."""
        return pixels.clamp(0, 1) if self.bounded else pixels


def inputs_of(
    model: nn.Module, shape: int | Sequence[int] | None, normalize: Constants | None, norms: Sequence[Stored]
) -> Inputs:
    """What the model takes, tried by passes of one sample. Raises BnprobeError where it does not take that."""
    parameter = next(iter(ModuleTree.of(model).parameters().values()), None)
    device = norms[0].mean.device if parameter is None else parameter.device
    dtype = parameter.dtype if parameter is not None and parameter.is_floating_point() else torch.float32

    def made(of: Shape) -> Inputs:
        mean, std = _constants(GRAY if normalize is None else normalize, of)
        return Inputs(of, mean.to(device), std.to(device), normalize is not None, dtype)

    whole = _whole(model, shape)
    if whole is None:
        return made(_guessed(model, norms, made))
    inputs = made(whole)
    if why := refusal(model, inputs):
        raise BnprobeError(
            f"{class_name(model)} refuses inputs of shape {whole} ({why}). Pass shape=(channels, height, width)."
        )
    return inputs


def refusal(model: nn.Module, inputs: Inputs) -> str:
    """Why a model does not take such inputs; empty where it does."""
    try:
        with torch.no_grad():
            model(inputs.of(torch.full((2, *inputs.shape), 0.5, device=inputs.device)))
    except Exception as error:  # the user's model may raise anything
        return said(error)
    return ""


def stages_of(
    model: nn.Module, inputs: Inputs, wanted: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], ...]:
    """Of the stages with smaller images those that leave a shape, and that the model takes: one with a linear layer for
    every pixel takes none."""
    if len(inputs.shape) != 3:
        return ()
    return tuple(
        (until, part)
        for until, part in wanted
        if min(smaller(inputs.shape[1:], part)) >= SMALL_SIDE
        and not refusal(model, replace(inputs, shape=(inputs.shape[0], *smaller(inputs.shape[1:], part))))
    )


def is_large(inputs: Inputs) -> bool:
    """Whether they are images of twice the side that images may shrink to, or more."""
    return len(inputs.shape) == 3 and min(inputs.shape[1:]) >= 2 * SMALL_SIDE


def smaller(sides: Sequence[int], part: float) -> torch.Size:
    """A part of each side, one pixel at least."""
    return torch.Size(max(round(part * side), 1) for side in sides)


def n_classes(model: nn.Module, inputs: Inputs) -> int | None:
    """How many classes the model scores for each sample; None if its output is none of (N, K)."""
    with torch.no_grad():
        found = deciding(model(inputs.of(torch.full((2, *inputs.shape), 0.5, device=inputs.device))))
    return found.shape[1] if found is not None and found.dim() == 2 and found.shape[1] > 1 else None


def target_classes(targets: Any, n: int, of: int | None) -> Tensor | None:
    """The class of each of n images, shape (n,): as given, repeated in turn, or all of them by turns.

    Raises BnprobeError where one is no class of the model.
    """
    if of is None:
        if targets is not None:
            raise BnprobeError(
                "targets are given, but the model's output scores no classes, one row per sample. Leave them out."
            )
        return None
    if targets is None:
        return torch.arange(n) % of if n >= of else torch.arange(n) * of // n
    try:
        given = torch.as_tensor(targets)
        given = given.flatten() if given.dim() < 2 else torch.empty(0)
    except (TypeError, ValueError, RuntimeError):
        given = torch.empty(0)
    if given.is_floating_point() or given.dtype == torch.bool or not 0 < len(given) <= n:
        raise BnprobeError(
            f"targets must be 1 to {n:,} whole numbers of classes, one per image (fewer are repeated in turn), "
            f"got {str(targets)[:60]}."
        )
    wrong = [int(t) for t in given if not 0 <= t < of]
    if wrong:
        raise BnprobeError(
            f"target {wrong[0]} is no class of the model, which has {of:,}. Pass numbers of 0 to {of - 1:,}."
        )
    return given.long()[torch.arange(n) % len(given)]


def names_of_classes(names: Any, of: int | None) -> tuple[str, ...]:
    """One text per class, or none. Raises BnprobeError for others."""
    if (
        isinstance(names, str)
        or not isinstance(names, Sequence)
        or not all(isinstance(name, str) for name in names)
    ):
        raise BnprobeError(f"class_names must be a list of texts, one per class, got {str(names)[:60]}.")
    if names and of is not None and len(names) != of:
        raise BnprobeError(
            f"class_names has {count(len(names), 'name')} and the network {count(of, 'class')}. Pass one for each, in "
            "their order."
        )
    return tuple(names)


def _whole(model: nn.Module, shape: int | Sequence[int] | None) -> Shape | None:
    """The shape of one sample; a side, or height and width, is of an image with the channels of the first layer."""
    if shape is None:
        return None
    if isinstance(shape, int) and not isinstance(shape, bool):
        shape = (shape, shape)
    sizes = tuple(shape) if isinstance(shape, Sequence) else ()
    right = all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes)
    if not sizes or not right or math.prod(sizes) > LARGEST:
        raise BnprobeError(
            f"shape={shape!r:.60} is no shape of an input. Pass (channels, height, width), or a side like 224."
        )
    return (_channels(model) or 3, *sizes) if len(sizes) == 2 else sizes


def _channels(model: nn.Module) -> int | None:
    """Of the input of the first convolution."""
    for module in ModuleTree.of(model).modules.values():
        for name, weight in parameters_of(module):
            if name == "weight" and weight.dim() == 4:
                return int(weight.shape[1]) * int(getattr(module, "groups", 1))
    return None


def _guessed(model: nn.Module, norms: Sequence[Stored], made: Any) -> Shape:
    """Images of the first usual side that the model takes, and in which its deepest norm still sees a shape."""
    channels = _channels(model)
    taken = None
    for side in SIDES if channels else ():
        shape = (int(channels or 0), side, side)
        room, why = _room(model, norms, made(shape))
        if not why:
            taken = taken or shape
            if room >= ROOM:
                return shape
    if taken is None:
        raise BnprobeError(
            f"{class_name(model)} takes no images of the usual sizes. Pass shape=, that of one input without the batch."
        )
    return taken


def _room(model: nn.Module, norms: Sequence[Stored], inputs: Inputs) -> tuple[int, str]:
    """The least number of positions of an image in any norm, and why the model refuses it."""
    seen = [ROOM]

    def look(module: Any, args: Any, kwargs: Any) -> None:
        x = first_tensor(args, kwargs)
        if x is not None and x.dim() == 4:
            seen.append(x.shape[2] * x.shape[3])

    with ExitStack() as undo:
        for norm in norms:
            hook = method(norm.module, "register_forward_pre_hook")(look, with_kwargs=True)
            undo.callback(hook.remove)
        why = refusal(model, inputs)
    return min(seen), why


def _constants(given: Constants, shape: Shape) -> tuple[Tensor, Tensor]:
    """Mean and std of shape (C, 1, 1), to divide pixels by. Raises BnprobeError where they are none."""
    try:
        mean, std = (torch.as_tensor(values, dtype=torch.float32).flatten() for values in given)
    except (TypeError, ValueError, RuntimeError):
        mean = std = torch.empty(0)
    if (
        len(mean) != len(std)
        or len(mean) not in (1, shape[0])
        or not (std > 0).all()
        or not (mean.isfinite() & std.isfinite()).all()
    ):
        raise BnprobeError(
            f"normalize={given!r:.80} is no mean and std of {count(shape[0], 'channel')}. Pass (mean, std), on the command "
            "line --mean and --std: one number per channel, or one for all, every std above 0."
        )
    rest = (1,) * (len(shape) - 1)
    return mean.view(-1, *rest), std.view(-1, *rest)
