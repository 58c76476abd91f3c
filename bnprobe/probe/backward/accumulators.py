"""The totals of a site's backward passes, added up one after another."""

from __future__ import annotations

from typing import Any

import numpy as np

from bnprobe.probe.backward.observe_gradient import PassGradient
from bnprobe.probe.calls.accumulators import join_sums
from bnprobe.recording import GradientRecord, NonfiniteGradient, ProducerRecord
from bnprobe.recording.merge import merge_optional
from bnprobe.reductions import moments_of
from bnprobe.stats import Moments
from bnprobe.stats.fields import NONFINITE
from bnprobe.stats.moments import Array

AT_ONCE = 64
"""Vectors of this many passes are pooled at once: pooling two costs as much as pooling many."""


class GradientTotals:
    """The backward passes of a site: `add` one, and `finished` for its record."""

    def __init__(self) -> None:
        self._n_passes = self._n_passes_dx = 0
        self._packed: dict[str, Array] = {}
        self._values: dict[str, list[Array]] = {}
        self._pooled: dict[str, Moments] = {}
        self._energy: Any = 0.0
        self._gaps: dict[str, Array] = {}
        self._nonfinite: NonfiniteGradient | None = None

    def add(self, new: PassGradient) -> None:
        """Join one pass."""
        if new.nonfinite is not None:
            self._nonfinite = merge_optional(self._nonfinite, new.nonfinite, True)
            if new.nonfinite.n_scaled:
                return  # the scaler skips the step of this pass, and lowers the scale
        self._n_passes += 1
        join_sums(self._packed, "dy", new.dy)
        if new.dx is not None:
            self._n_passes_dx += 1
            join_sums(self._packed, "dx", new.dx)
        self._energy = self._energy + new.energy
        for name in ("gap_centre", "gap_map", "gap_weight"):
            gap = getattr(new, name)
            if gap is not None:
                self._gaps[name] = np.fmax(self._gaps.get(name, gap), gap)
        for name, vector in new.vectors.items():
            self._values.setdefault(name, []).append(vector)
            if len(self._values[name]) == AT_ONCE:
                self._pooled[name] = self._moments(name)
                self._values[name] = []

    def _moments(self, name: str) -> Moments:
        """Moments over passes of one of the vectors."""
        known = self._pooled.get(name)
        values = self._values[name]
        new = Moments.of(np.array(values)) if values else None
        if known is None or new is None:
            one = known or new
            assert one is not None
            return one
        return known.merge(new)

    def finished(self) -> GradientRecord:
        """Everything so far; later passes do not change it."""
        sums = {name: rows.copy() for name, rows in self._packed.items()}
        vectors = {name: self._moments(name) for name in self._values}
        producer = None
        if "norm" in vectors:
            producer = ProducerRecord(
                vectors["norm"], vectors["grad_norm"], vectors["angle"], self._gaps["gap_weight"]
            )
        if not self._n_passes:
            assert self._nonfinite is not None
            return _nothing_finite(self._nonfinite)
        return GradientRecord(
            n_passes=self._n_passes,
            n_passes_dx=self._n_passes_dx,
            dy=moments_of(sums["dy"]),
            dy_nonfinite=sums["dy"][NONFINITE],
            dx=moments_of(sums["dx"]) if "dx" in sums else None,
            **{name: vectors.get(name) for name in ("gamma", "beta", "importance", "stream")},
            energy=self._energy,
            gap_centre=self._gaps["gap_centre"],
            gap_map=self._gaps["gap_map"],
            producer=producer,
            nonfinite=self._nonfinite,
        )


def _nothing_finite(counted: NonfiniteGradient) -> GradientRecord:
    """The record of a site whose passes all overflowed under a loss scale."""
    zeros = np.zeros(counted.dx_values.shape)
    unknown = np.full(zeros.shape, np.nan)
    return GradientRecord(
        n_passes=0,
        n_passes_dx=0,
        dy=Moments.empty(zeros.shape),
        dy_nonfinite=zeros,
        **dict.fromkeys(("dx", "gamma", "beta", "importance", "producer")),
        energy=zeros,
        gap_centre=unknown,
        gap_map=unknown,
        nonfinite=counted,
    )
