"""Layers of every geometry, and the plain linear map that torch makes of each: references for the closed forms."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bnprobe.graph.geometry import Geometry


def _layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    return {
        "3x3": (nn.Conv2d(3, 4, 3, padding=1), (5, 7)),
        "stride 2": (nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), (6, 7)),
        "7x7 stride 2": (nn.Conv2d(2, 3, 7, stride=2, padding=3), (9, 8)),
        "dilated": (nn.Conv2d(2, 3, 3, padding=(2, 4), dilation=(2, 3)), (7, 9)),
        "uneven kernel": (nn.Conv2d(2, 3, (2, 5), stride=(3, 1), padding=(0, 2)), (8, 6)),
        "padding beyond the kernel": (nn.Conv2d(1, 2, 2, padding=3), (3, 4)),
        "groups": (nn.Conv2d(6, 4, 3, padding=1, groups=2), (4, 5)),
        "depthwise": (nn.Conv2d(5, 5, 3, stride=2, padding=1, groups=5, bias=False), (5, 6)),
        "depth multiplier": (nn.Conv2d(2, 6, 3, padding=1, groups=2), (4, 3)),
        "no padding": (nn.Conv2d(3, 2, 3), (5, 6)),
        "1d": (nn.Conv1d(3, 4, 5, stride=2, padding=2), (11,)),
        "3d": (nn.Conv3d(2, 3, (3, 1, 3), stride=(1, 2, 2), padding=(1, 0, 1)), (4, 3, 5)),
        "transposed": (nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1), (4, 3)),
        "transposed, groups": (
            nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1, output_padding=2, groups=2, dilation=2),
            (3, 4),
        ),
        "transposed 1d": (nn.ConvTranspose1d(2, 3, 3, bias=False), (5,)),
        "linear": (nn.Linear(5, 3), ()),
    }


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    LAYERS = _layers()
"""A layer and the spatial size of its input."""


def values_of(layer: nn.Module) -> tuple[np.ndarray, np.ndarray | None]:
    """Weight and bias in float64."""
    bias = None if layer.bias is None else layer.bias.detach().double().numpy()
    return layer.weight.detach().double().numpy(), bias


def n_inputs(layer: nn.Module) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def geometry_of(layer: nn.Module, size: tuple[int, ...]) -> Geometry:
    """The layer's own numbers; the output size by running it."""
    if isinstance(layer, nn.Linear):
        return Geometry()
    with torch.no_grad():
        output = tuple(layer(torch.zeros(1, layer.in_channels, *size)).shape[2:])
    return Geometry(
        stride=tuple(layer.stride),
        padding=tuple((p, p) for p in layer.padding),
        dilation=tuple(layer.dilation),
        groups=layer.groups,
        input_size=size,
        output_size=output,
        transposed=layer.transposed,
        output_padding=tuple(layer.output_padding) if layer.transposed else (),
    )


def run(layer: nn.Module, x: Tensor) -> np.ndarray:
    """The layer in float64 on (N, C, *size) or (N, C), as (N, C_out, positions)."""
    with torch.no_grad():
        y = layer.double()(x.double())
    layer.float()
    return y.flatten(2).numpy() if y.dim() > 2 else y[..., None].numpy()


def as_matrix(layer: nn.Module, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """y = matrix @ x + constant for x flattened: (C_out, positions, inputs) and (C_out, positions)."""
    c = n_inputs(layer)
    n = c * int(np.prod(size, dtype=int))
    constant = run(layer, torch.zeros(1, c, *size))[0]
    columns = run(layer, torch.eye(n).reshape(n, c, *size)) - constant
    return np.moveaxis(columns, 0, -1), constant


def pooled(
    layer: nn.Module, size: tuple[int, ...], mean: np.ndarray, var: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over positions and samples of every output channel, for independent inputs.

    `mean` and `var` are (C_in,), the same at every position. By the law of total variance.
    """
    matrix, constant = as_matrix(layer, size)
    positions = int(np.prod(size, dtype=int))
    means = matrix @ np.repeat(mean, positions) + constant
    variances = matrix**2 @ np.repeat(var, positions)
    return means.mean(axis=1), variances.mean(axis=1) + means.var(axis=1)
