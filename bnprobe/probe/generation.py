"""Generation with a cache: which sequences a pass continues, and how many rows of a batch belong to one prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from bnprobe.probe.masks import Kept, Mask
from bnprobe.probe.places import Earlier
from bnprobe.probe.tensors import is_transformed, tensors_in


class Begun:
    """The sequences that have begun in one phase, by the cache that they are continued with.

    Two batches may be generated in turn, so the pass before is not always the one that a pass continues.
    """

    def __init__(self) -> None:
        self._first: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.n = 0

    def add(self, cache: Any, n: int) -> None:
        """So many sequences have begun, with this cache; None for none."""
        with suppress(TypeError):  # a cache that cannot be referred to
            self._first[cache] = self.n
        self.n += n

    def forget(self, cache: Any) -> None:
        """The cache begins with other sequences."""
        with suppress(TypeError):
            self._first.pop(cache, None)

    def knows(self, cache: Any) -> bool:
        """Whether the sequences in a cache have begun in this phase."""
        with suppress(TypeError):
            return cache in self._first
        return False

    def since(self, cache: Any) -> int | None:
        """How many sequences have begun since the first one of a cache did, that one included; None if not known."""
        with suppress(TypeError):
            return self.n - self._first[cache] if cache in self._first else None
        return None


class Taken:
    """Whether sequences are recorded, by their cache: passes that continue them follow the one that began them."""

    def __init__(self) -> None:
        self._taken: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

    def began(self, past: Earlier, taken: bool) -> None:
        """A pass begins sequences, and is recorded or not."""
        with suppress(TypeError):
            self._taken[past.cache] = taken

    def of(self, past: Earlier, otherwise: bool) -> bool:
        """Whether the sequences that a pass continues are recorded; `otherwise` where their cache does not tell."""
        with suppress(TypeError):
            return self._taken.get(past.cache, otherwise)
        return otherwise


class Masks:
    """What counts of the sequences in a cache: models of states are given a mask with the prompt, and none with the rest."""

    def __init__(self) -> None:
        self._masks: WeakKeyDictionary[Any, Mask] = WeakKeyDictionary()

    def of(self, cache: Any, mask: Kept | None, tokens: Tensor | None, continues: bool) -> Kept | None:
        """The mask of a call; of one that has none and goes on with a cache, in which all of its tokens count."""
        with suppress(TypeError):
            before = self._masks.get(cache) if continues and mask is None else None
            if before is not None and tokens is not None and len(tokens) == before.n_samples:
                mask = before.with_more(tokens.shape[1])
            if isinstance(mask, Mask) and mask.history.ndim == 2:
                self._masks[cache] = mask
            elif not continues:
                self._masks.pop(cache, None)
        return mask


class Rows:
    """How many rows of a batch are beams or copies of one prompt, by the cache that they are continued with."""

    def __init__(self) -> None:
        self._rows: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def of_one_prompt(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], past: Earlier, n_rows: int
    ) -> int:
        """As many as are alike when they begin, and later, when they have parted, as many as they were then."""
        if past.cache is None or is_transformed():
            return 1
        with suppress(TypeError):
            if past.continues:
                found = self._rows.get(past.cache, 1)
                return found if n_rows % found == 0 else 1
            self._rows[past.cache] = found = alike(tensors_in([args, dict(kwargs)]), n_rows)
            return found
        return 1


def alike(tensors: Iterable[Tensor], n_rows: int) -> int:
    """The rows in a run that are the same in every tensor that has so many rows; of several runs what divides them all."""
    new = torch.zeros(max(n_rows - 1, 0), dtype=torch.bool)
    for tensor in tensors:
        if tensor.dim() and len(tensor) == n_rows and not (tensor.is_meta or tensor.is_nested):
            rows = tensor.detach().unsqueeze(-1).flatten(1)
            new |= (rows[1:] != rows[:-1]).any(1).cpu()
    starts = [0, *(new.nonzero().flatten() + 1).tolist(), n_rows]
    return math.gcd(*(end - start for start, end in pairwise(starts))) or 1
