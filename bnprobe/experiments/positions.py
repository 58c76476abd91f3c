"""The places of tokens in their sequences, for the batch at hand: what comes first, and what is padding.

N sequences, T positions, P positions in the rows of a norm's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.batches import parts
from bnprobe.probe.masking import USUAL

PADDING = -1
"""The place of what is no token."""


class Positions:
    """Of one batch; without tokens in it positions are counted where a norm's input has but one dimension of them."""

    def __init__(self) -> None:
        self._places: Tensor | None = None

    def see(self, batch: Any) -> None:
        """From now on this batch is at hand."""
        self._places = None
        ids = _ids(parts(batch)[0])
        if ids is None:
            return
        mask = _mask(parts(batch)[0], ids)
        self._places = torch.arange(ids.shape[1]).expand(ids.shape)
        if mask is not None:
            counts = mask.cpu() != 0
            self._places = (counts.cumsum(1) - 1).masked_fill(~counts, PADDING)

    def of(self, layer: NormLayer, x: Tensor) -> Tensor | None:
        """The place of each row's value, shape (N, P); None where it is not clear which dimension holds positions."""
        n, *sizes = layer.places(x)
        if self._places is None:
            real = [dim for dim, size in enumerate(sizes) if size > 1]
            if len(real) != 1:
                return None
            return torch.arange(sizes[real[0]]).expand(n, -1)
        rows, t = self._places.shape
        if n == rows * t and not [size for size in sizes if size > 1]:
            return self._places.reshape(-1, 1)
        fitting = [dim for dim, size in enumerate(sizes) if size == t]
        places = self._places
        if n != rows and bool((places == places[0]).all()):
            places = places[:1].expand(n, t)  # a part of the batch, all of whose sequences begin alike
        if len(places) != n or len(fitting) != 1:
            return None
        spread = [t if dim == fitting[0] else 1 for dim in range(len(sizes))]
        return places.reshape(n, *spread).expand(n, *sizes).reshape(n, -1)


def _ids(x: Any) -> Tensor | None:
    """The tokens of an input, shape (N, T); None where it has none."""
    given = x.get("input_ids") if isinstance(x, Mapping) else x[0] if isinstance(x, tuple) and x else x
    if not isinstance(given, Tensor) or given.dim() != 2 or not given.numel():
        return None
    return None if given.is_floating_point() or given.dtype == torch.bool else given


def _mask(x: Any, ids: Tensor) -> Tensor | None:
    named = (x.get(name) for name in USUAL) if isinstance(x, Mapping) else ()
    return next((m for m in named if isinstance(m, Tensor) and m.shape == ids.shape), None)


def next_tokens(batch: Any, ignored: int) -> Tensor | None:
    """What the outputs of each token should predict, shape (N, T), `ignored` where nothing; None without tokens.

    Labels of the input, which the loss shifts, come before the tokens themselves.
    """
    x, _ = parts(batch)
    ids = _ids(x)
    if ids is None:
        return None
    labels = x.get("labels") if isinstance(x, Mapping) else None
    mask = _mask(x, ids)
    following = labels if isinstance(labels, Tensor) and labels.shape == ids.shape else ids
    following = following if mask is None else following.masked_fill(mask == 0, ignored)
    found = torch.cat([following[:, 1:], torch.full_like(ids[:, :1], ignored)], 1)
    return found if mask is None else found.masked_fill(mask == 0, ignored)
