"""Sequences packed one behind another, without padding: which tokens belong together, by where each sequence begins."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bnprobe.errors import BadMask
from bnprobe.norms import NormLayer
from bnprobe.reductions import Packed, Valid
from bnprobe.stats.moments import Array

NAMED = re.compile(r"cu_?seq_?lens?(_[a-z]+)?$")
"""Names under which attention kernels and Hugging Face take the places where sequences begin."""

_FORM = "whole numbers that begin with 0 and never fall, such as [0, 5, 8] for sequences of 5 and 3 tokens"


class Packing:
    """The sequences of a batch of tokens, as a mask is of a padded batch: what it keeps is all of it, by sequences.

    Raises BadMask for anything but whole numbers that begin with 0 and do not fall.
    """

    def __init__(self, given: Any) -> None:
        self._offsets = _offsets(given)
        self.n_samples = len(self._offsets) - 1
        self.n_valid, self.n_left_out = int(self._offsets[-1]), 0
        self._placed: dict[tuple[int, ...], Packed | None] = {}

    @property
    def sequence(self) -> Array:
        """The number of the sequence of each token, shape (1, tokens)."""
        return np.repeat(np.arange(self.n_samples, dtype=np.float64), np.diff(self._offsets))[None]

    @property
    def position(self) -> Array:
        """Of each token in its sequence, shape (1, tokens)."""
        first = np.repeat(self._offsets[:-1], np.diff(self._offsets))
        return (np.arange(self.n_valid) - first).astype(np.float64)[None]

    def samples_of(self, first: Tensor, n_samples: int) -> int:
        """How many sequences a batch holds whose first tensor this is. Raises BadMask where it has not their tokens."""
        if self.n_valid not in first.shape[:2]:
            raise BadMask(
                f"got sequences of {self.n_valid:,} tokens in all, and an input of shape {tuple(first.shape)}. Pass where "
                "each sequence of this batch begins, and the number of tokens at the end."
            )
        return self.n_samples

    def on(self, plan: NormLayer, x: Tensor) -> tuple[bool, Valid | None]:
        """Whether an input of a norm has these tokens, and which of its rows belong to which sequence.

        It has them where they are its first dimension, or its second behind one of size 1. Not where the norm computes
        statistics per sample over positions: for it the tokens of all sequences are one sample.
        """
        pool, places = plan.pool, plan.places(x)
        if pool.positions and not pool.samples and not plan.uses_running:
            return False, None
        if places not in self._placed:
            self._placed[places] = self._found(places)
        packed = self._placed[places]
        return packed is not None, packed

    def _found(self, places: tuple[int, ...]) -> Packed | None:
        n, *sizes = places
        if n == self.n_valid and n > 1:
            return Packed(self._offsets, as_samples=True, per_token=int(np.prod(sizes, dtype=int)))
        if n == 1 and sizes and sizes[0] == self.n_valid:
            return Packed(self._offsets, as_samples=False, per_token=int(np.prod(sizes[1:], dtype=int)))
        return None


def _offsets(given: Any) -> npt.NDArray[np.int64]:
    """A copy, through an array of our own: a tensor that numpy has seen cannot be resized again."""
    if isinstance(given, Tensor):
        whole = not (
            given.is_floating_point() or given.is_complex() or given.is_meta or given.dtype == torch.bool
        )
        values = np.array(given.detach().cpu().tolist()) if whole else None
    else:
        try:
            values = np.asarray(given)
        except ValueError:  # rows of unequal length
            values = None
    if (
        values is None
        or values.dtype.kind not in "iu"
        or values.ndim != 1
        or len(values) < 2
        or values[0] != 0
        or values[-1] == 0
        or bool((np.diff(values) < 0).any())
    ):
        raise BadMask(f"where sequences begin must be {_FORM}, got {given!r:.80}.")
    return values.astype(np.int64)
