"""How a layer's weights meet its input: plain data, from which weights are reduced.

Plain data without torch. Weights are numpy arrays in torch's own layout: (out, in / groups,
*kernel) for a convolution, (in, out / groups, *kernel) for a transposed one, (out, in) for a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bnprobe.stats.moments import Array


@dataclass(frozen=True)
class Geometry:
    """Where a weight meets which position; one entry per spatial dimension, none for a linear layer.

    `padding` holds the zeros put before and after (an explicit zero padding ahead of the convolution is
    counted in); `input_size` and `output_size` are the spatial sizes before that padding and after the
    layer. `output_padding` only matters for a transposed convolution.
    """

    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    input_size: tuple[int, ...] = ()
    output_size: tuple[int, ...] = ()
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def is_linear(self) -> bool:
        """Whether there are no positions: a linear layer mixes channels only."""
        return not self.stride


@dataclass(frozen=True)
class Source:
    """What the values that reach a layer's weights are made of, as `activation`(`what`).

    what         meaning
    "norm"       the output of the norm `site`; gamma and beta (C,) are its own, or None
    "sum"        the sum of `parts`, each over all channels
    "concat"     `parts` one after the other along the channels
    "input"      the input of the model
    "unknown"    anything else

    `activation` is named as in `Neighbours.follows` ("none" for nothing). `n_channels` counts the channels of
    this block. `pool` is "max" or "avg" where a pooling stands between the activation and the weights, so
    that closed forms hold for nothing ("max") or for the mean only ("avg"); "" otherwise. `adjusted` says of the model's
    input that constants were subtracted from it, or divided by, on the way, as by a model that normalizes its images itself.
    """

    what: str
    activation: str = "none"
    n_channels: int = 0
    site: str = ""
    gamma: Array | None = None
    beta: Array | None = None
    parts: tuple[Source, ...] = ()
    pool: str = ""
    adjusted: bool = False

    @property
    def key(self) -> SourceKey:
        """What tells one source from another."""
        parts = tuple(part.key for part in self.parts)
        own = tuple(None if vector is None else vector.tobytes() for vector in (self.gamma, self.beta))
        return self.what, self.activation, self.pool, self.site, self.n_channels, self.adjusted, own, parts


SourceKey = tuple[Any, ...]


@dataclass(frozen=True)
class Producer:
    """The layer whose weights made the input of a norm, with a copy of its values.

    `source` describes the layer's own input. `weight` has torch's layout (see the module), `bias` (C,).
    """

    name: str
    weight: Array
    bias: Array | None
    geometry: Geometry
    source: Source
