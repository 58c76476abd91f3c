"""A reading that is still on its device, where readings can be added up without waiting for any of them.

It is a `Reading`: whoever looks at a number of it gets it, and from then on all of it is on the host, by one
transfer that waits until the tensor has been read. Whoever does not look does not wait.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from bnprobe.reductions.reading import Counts, Reading, Tokens
from bnprobe.stats import N_FOLDS, Moments
from bnprobe.stats.fields import POSITIVE
from bnprobe.stats.moments import Array


class DeviceReading(Reading):
    """What `gpu.engine.read` left on the device, float64; the fields are those of `Reading`.

    With F for the number of `stats.fields.FIELDS`: `packed` has shape (F, C), `histogram` (C, N_BINS), `rows`
    (7, N, C), `packed_per_sample` (F, 2); `gated` says whether positive values were counted. `n_images` and
    `n_values` are those that were offered: which of them were finite is not known before someone looks.
    """

    def __init__(
        self,
        packed: Tensor,
        gated: bool,
        histogram: Tensor | None,
        rows: Tensor | None,
        per_sample: Tensor | None,
        offered: tuple[int, int],
        tokens: Tokens | None = None,
    ) -> None:
        # the base is frozen, and its fields are worked out below when they are asked for
        self.__dict__.update(
            there=(packed, histogram, rows, per_sample), gated=gated, offered=offered, tokens=tokens
        )

    there: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
    gated: bool
    offered: tuple[int, int]

    @property
    def fetched(self) -> bool:
        """Whether someone has looked."""
        return "_home" in self.__dict__

    @cached_property
    def _home(self) -> list[Any]:
        return fetched(*self.there)

    @cached_property
    def packed(self) -> Array:
        """As `Reading.packed`."""
        packed: Array = self._home[0]
        return packed

    @cached_property
    def counts(self) -> Counts:
        """As `Reading.counts`."""
        return Counts(self.packed[POSITIVE] if self.gated else None, self._home[1])

    @cached_property
    def rows(self) -> Moments | None:
        """As `Reading.rows`; that there are none can be known without looking."""
        return None if self.there[2] is None else Moments(*self._home[2])

    @cached_property
    def packed_per_sample(self) -> Array | None:
        """As `Reading.packed_per_sample`; that there are none can be known without looking."""
        per_sample: Array | None = None if self.there[3] is None else self._home[3]
        return per_sample

    @property
    def n_values(self) -> float:
        """Values per channel that were offered."""
        return float(self.offered[0] * self.offered[1])

    @property
    def n_images(self) -> int:
        """Images that were offered."""
        return self.offered[0]

    def without_rows(self) -> Reading:
        """As `Reading.without_rows`; it does not look, and what was looked at stays on the host."""
        if self.fetched:
            return Reading(self.packed, self.counts, None, self.packed_per_sample, self.tokens)
        packed, histogram, _, per_sample = self.there
        return DeviceReading(packed, self.gated, histogram, None, per_sample, self.offered, self.tokens)

    def about(self, origin: Array) -> Reading:  # type: ignore[override]
        """As `Reading.about`; it looks."""
        return Reading(self.packed, self.counts, self.rows, self.packed_per_sample, self.tokens).about(origin)

    def is_like(self, other: Self) -> bool:
        """Whether the same was asked of both, so that they add."""
        return self.gated == other.gated and all(
            (a is None) == (b is None)
            and (a is None or b is None or (a.shape, a.device) == (b.shape, b.device))
            for a, b in zip(self.there, other.there, strict=True)
        )


FOLD_ROWS = 2 + 3 * N_FOLDS
"""Rows of the sums of a site: its origin, what is within batches, then three for each fold."""


class FoldRows(NamedTuple):
    """Where a fold of a site is: its three rows, from number `row`, of the sums that `new_folds` made."""

    sums: Tensor
    row: int


def new_folds(origin: Array, like: DeviceReading) -> Tensor:
    """FOLD_ROWS of zeros, about `origin` (C,), where a reading is."""
    sums = like.there[0].new_zeros((FOLD_ROWS, len(origin)))
    # not waiting is safe: memory that is not pinned has been read when the call returns
    sums[0].copy_(torch.from_numpy(origin), non_blocking=True)
    return sums


def fetched(*parts: Tensor | None) -> list[Any]:
    """Float64 tensors as numpy arrays, in one transfer; None for None."""
    there = [part for part in parts if part is not None]
    if not there:
        return list(parts)
    flat = torch.cat([part.reshape(-1) for part in there]).cpu().numpy()
    arrays, at = [], 0
    for part in there:
        arrays.append(flat[at : at + part.numel()].reshape(part.shape))
        at += part.numel()
    found = iter(arrays)
    return [None if part is None else next(found) for part in parts]
