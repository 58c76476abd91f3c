"""Of each channel the samples on which it is highest and lowest, kept while samples come in: a top-k that adds up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array

SIDES = ("high", "low")
"""The two ends of a channel's values, in the order of the first dimension of `Exemplars`."""

SIGNS = np.array([1.0, -1.0])[:, None, None]
"""By which values are multiplied, so that on either side the largest score comes first."""

NOBODY = -1.0
"""The number of no sample: its value is NaN."""


@dataclass(frozen=True)
class Exemplars:
    """The K samples with the highest values of each channel, from the highest down, and the K lowest, from the lowest up.

    All of shape (2, C, K), float64. `value` is NaN, and `sample` -1, where fewer samples had a value. `sample` are numbers
    of samples; equal values come by rising number, and no sample comes twice on one side of a channel. `position` is the
    place in the sample where it has this value, NaN where the value is a mean over places.
    """

    value: Array
    sample: Array
    position: Array

    def __repr__(self) -> str:
        _, c, k = self.value.shape
        return f"Exemplars({k:,} on either side of {c:,} channels)"

    def __post_init__(self) -> None:
        shape = self.value.shape
        if len(shape) != 3 or shape[0] != len(SIDES) or not shape[2]:
            raise BnprobeError(f"Exemplars need values of shape (2, C, K), got {shape}.")
        if self.sample.shape != shape or self.position.shape != shape:
            raise BnprobeError(
                f"Exemplars need one number and one position per value, got {shape}, {self.sample.shape} and "
                f"{self.position.shape}."
            )

    @classmethod
    def of(cls, value: Array, sample: Array, position: Array, k: int) -> Self:
        """The best `k` of any number of samples; all of shape (2, C, M), as the fields are."""
        if value.shape[2] < k:
            missing = ((0, 0), (0, 0), (0, k - value.shape[2]))
            value = np.pad(value, missing, constant_values=np.nan)
            sample = np.pad(sample, missing, constant_values=NOBODY)
            position = np.pad(position, missing, constant_values=np.nan)
        score = np.where(sample == NOBODY, -np.inf, value * SIGNS)
        rows = (part.reshape(-1, part.shape[2]) for part in (score, sample, position))
        score, sample, position = best(*once(*rows), k)
        shape = (*value.shape[:2], k)
        value = np.where(np.isneginf(score), np.nan, score).reshape(shape) * SIGNS
        return cls(value, sample.reshape(shape), position.reshape(shape))

    @property
    def k(self) -> int:
        """How many are kept on either side."""
        return int(self.value.shape[2])

    def merge(self, other: Self) -> Self:
        """The exemplars of both: as many as the part that kept fewer, exactly as if all samples had come in one go."""
        value, sample, position = (
            np.concatenate([mine, theirs], axis=2)
            for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )
        return self.of(value, sample, position, min(self.k, other.k))

    def renumbered(self, new: Callable[[Array], Array]) -> Self:
        """With other numbers of the same samples, in the same order: a function of an array of numbers."""
        known = self.sample != NOBODY
        sample = np.full_like(self.sample, NOBODY)
        sample[known] = new(self.sample[known])
        return replace(self, sample=sample)

    def check_sane(self, where: str = "exemplars") -> Self:
        """Raise unless values are in order, and there is one wherever there is a sample."""
        known = self.sample != NOBODY
        whole = (self.sample >= NOBODY) & (self.sample == np.floor(self.sample))
        score = np.where(known, self.value * SIGNS, -np.inf)
        placed = np.isnan(self.position) | ((self.position >= 0) & (self.position == np.floor(self.position)))
        if not whole.all() or not placed.all() or (np.isfinite(self.value) != known).any():
            raise BnprobeError(f"{where}: numbers of samples, positions and values do not go together.")
        if (score[..., 1:] > score[..., :-1]).any():
            raise BnprobeError(f"{where}: values are not in order.")
        return self


def best(score: Array, sample: Array, position: Array, k: int) -> tuple[Array, Array, Array]:
    """The `k` largest scores of each row, shape (R, M), in falling order, with their samples and positions.

    Equal scores come by rising number of the sample, then position, so that the order in which they came in says nothing.
    """
    order = np.argsort(-score, axis=1)
    found = np.take_along_axis(score, order, axis=1)
    tied = np.flatnonzero(((found[:, 1:] == found[:, :-1]) & (found[:, 1:] > -np.inf)).any(axis=1))
    if tied.size:  # sorting by several keys takes four times as long, and hardly any channel needs it
        order[tied] = np.lexsort((position[tied], sample[tied], -score[tied]), axis=1)
    order = order[:, :k]
    first, second, third = (np.take_along_axis(part, order, axis=1) for part in (score, sample, position))
    return first, second, third


def once(score: Array, sample: Array, position: Array) -> tuple[Array, Array, Array]:
    """The same (R, M) without all but the best of the entries of one sample in a row."""
    order = np.lexsort((position, -score, sample), axis=1)
    in_order = np.take_along_axis(sample, order, axis=1)
    again = np.zeros(sample.shape, dtype=np.bool_)
    repeats = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] != NOBODY)
    np.put_along_axis(again, order[:, 1:], repeats, axis=1)
    return (
        np.where(again, -np.inf, score),
        np.where(again, NOBODY, sample),
        np.where(again, np.nan, position),
    )
