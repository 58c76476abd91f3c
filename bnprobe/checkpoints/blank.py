"""Blank inputs for a model whose inputs nobody describes, by its first layer: how many channels, and of which rank.

Of images, sequences and volumes only the sizes are unknown, and many models take any. No number of such a pass is kept:
it shows which operations follow which.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from bnprobe.norms import ModuleTree

SIDES = (224, 32, 28, 64, 96, 128, 160, 192, 256, 299, 320, 384, 512)
OBLONG = ((240, 320), (320, 240), (48, 512), (32, 100), (101, 40), (40, 101), (80, 100), (128, 1000))
"""Height and width of cameras' frames, lines of text, and spectrograms."""

LENGTHS = (16000, 1024, 1000, 512, 256, 128, 100, 64, 32, 16)
CUBES = (32, 16, 64, 112)
TOKENS = (16, 32, 64, 128, 512)


def blanks(model: nn.Module) -> Iterator[Tensor]:
    """Inputs that the model may take, the likeliest first; none where no first layer is known."""
    for module in ModuleTree.of(model).modules.values():
        found = [torch.zeros(1, *shape, dtype=dtype) for shape, dtype in _shapes(module)]
        if found:
            yield from found
            return


def _shapes(module: nn.Module) -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
    """Shapes without the batch, where this is the first layer of a model."""
    if isinstance(module, nn.Embedding):
        yield from (((length,), torch.long) for length in TOKENS)
        return
    shapes: Iterator[tuple[int, ...]] = iter(())
    if isinstance(module, nn.Linear):
        n = module.in_features
        shapes = iter([(n,), (16, n), (n, 1), *_square(n)])
    elif isinstance(module, nn.RNNBase):
        shapes = iter([(16, module.input_size)])
    elif isinstance(module, _ConvNd):
        shapes = _images(module.in_channels, len(module.kernel_size))
    elif isinstance(module, _BatchNorm):
        rank = {"BatchNorm1d": 1, "BatchNorm3d": 3}.get(type(module).__name__, 2)
        n = module.num_features
        shapes = iter([*([(n,), (16, n)] if rank == 1 else []), *_images(n, rank)])
    yield from ((shape, torch.float32) for shape in shapes)


def _images(channels: int, rank: int) -> Iterator[tuple[int, ...]]:
    sizes: tuple[tuple[int, ...], ...] = ()
    if rank == 1:
        sizes = tuple((length,) for length in LENGTHS)
    elif rank == 2:
        sizes = (*((side, side) for side in SIDES), *OBLONG)
    elif rank == 3:
        sizes = tuple((side,) * 3 for side in CUBES)
    yield from ((channels, *size) for size in sizes)
    if channels == 1:  # the model adds the channel itself
        yield from sizes


def _square(n: int) -> list[tuple[int, ...]]:
    """Grey images of n pixels, for a model that flattens them."""
    side = round(n**0.5)
    return [(1, side, side)] if side * side == n else []
