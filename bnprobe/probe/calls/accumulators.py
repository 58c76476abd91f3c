"""The totals of a site: the calls so far, added up one after another.

Updating is merging. Two things keep it cheaper than reading the tensors. Counts are added in place, in arrays that
belong to the totals alone. And calls under one and the same map (every call of a norm that uses running statistics)
are added on the input's side only: the affine image of a sum is the sum of the affine images, so the output's side is
computed once, when it is needed.

Calls whose readings are still on a GPU are added up there, into one long call, which is fetched when it is needed, or
when the next call cannot be added to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnprobe.probe.calls import CallStats, HistogramScale, InputReading, halves, turned, unit
from bnprobe.probe.calls.fold_sums import FoldSums
from bnprobe.reductions import Affine, DeviceReading, add, add_mapped, images_of, join, moments_of, packed
from bnprobe.stats import ClassMoments, Histogram, Moments
from bnprobe.stats.fields import recorded
from bnprobe.stats.moments import Array


class _HistogramSums:
    """Counts on one or more scales, added in place: a histogram that can be written to."""

    def __init__(self) -> None:
        self.sums: list[tuple[Array, Array, Array]] = []

    def add(self, centre: Array, scale: Array, counts: Array) -> None:
        for known, its_scale, total in self.sums:
            if np.array_equal(known, centre) and np.array_equal(its_scale, scale):
                total += counts
                return
        self.sums.append((centre, scale, counts.astype(np.float64)))  # a copy

    def copy(self) -> _HistogramSums:
        """A copy that can be written to."""
        other = _HistogramSums()
        other.sums = [(centre, scale, counts.copy()) for centre, scale, counts in self.sums]
        return other

    def histogram(self) -> Histogram | None:
        """A snapshot, not changed by later calls; None if nothing was counted."""
        if not self.sums:
            return None
        return Histogram(*(np.stack(parts) for parts in zip(*self.sums, strict=True)))


@dataclass
class _SameMapCalls:
    """Calls under one map per channel: their input, added up and packed."""

    map: Affine
    reference: HistogramScale
    pre: Array
    """May be written to: nobody else keeps a call's reading."""
    turning: _HistogramSums = field(default_factory=_HistogramSums)
    """The input's counts, if the output's are the same ones, mapped."""

    def covers(self, before: InputReading) -> bool:
        """Whether a call has this map: the same objects are passed on from call to call."""
        return self.map is before.map and self.reference is before.reference

    def turned(self) -> Histogram | None:
        """The output's counts, on exactly the scale of the site, so that they can be added."""
        counts, reference = self.turning.histogram(), self.reference
        if counts is None:
            return None
        there = turned(self.map, reference, counts.counts[0])
        return Histogram(reference.beta[None], unit(reference.gamma)[None], there[None])


class _Classes:
    """Images by class, added in place: a merge of values would copy all classes at every call."""

    def __init__(self) -> None:
        self._at: dict[float, int] = {}
        self._n: list[float] = []
        self._mean: list[Array] = []
        self._within: Any = 0.0

    def add(self, new: ClassMoments) -> None:
        """Add the samples of one call; the formula is that of `ClassMoments.merge`, class by class."""
        self._within = self._within + new.within
        for label, n, mean in zip(new.labels.tolist(), new.n.tolist(), new.mean, strict=True):
            if label not in self._at:
                self._at[label] = len(self._n)
                self._n.append(n)
                self._mean.append(mean.copy())
                continue
            i = self._at[label]
            share = n / (self._n[i] + n)
            d = mean - self._mean[i]
            self._within = self._within + d * d * self._n[i] * share
            self._mean[i] += d * share
            self._n[i] += n

    def finished(self) -> ClassMoments | None:
        """A snapshot; None if there were no labels."""
        if not self._n:
            return None
        labels = np.array(list(self._at))
        order = np.argsort(labels)
        return ClassMoments(
            labels[order], np.array(self._n)[order], np.array(self._mean)[order], self._within
        )


class Totals:
    """The running totals of a site: `add` a call, and `finished` for what its record holds."""

    def __init__(self) -> None:
        self._packed: dict[str, Array] = {}
        self._counts = {"pre": _HistogramSums(), "post": _HistogramSums()}
        self._classes = _Classes()
        self._folds = FoldSums()
        self._same_map: _SameMapCalls | None = None
        self._n_positive: Any = 0.0
        self._on_device: CallStats | None = None
        """The calls that are still on their device, added up."""
        self.n_values = 0.0
        """Values per channel so far."""

    def add(self, seen: CallStats, continues: bool = False) -> None:
        """Join one call; `continues` if its sequences are those of the last one."""
        reading = seen.before.reading
        self.n_values += reading.n_values
        if not (seen.stays and isinstance(reading, DeviceReading)):
            self._folds.add(seen.before, continues)
            self._add(seen)
        elif self._on_device is not None and seen.joins(self._on_device):
            seen.join(self._on_device, self._folds.there(seen.before, reading, continues))
        else:
            self.fetch()
            join(None, reading, self._folds.there(seen.before, reading, continues))
            self._on_device = seen

    def fetch(self) -> None:
        """Fetch what is still on its device."""
        self._folds.fetch()
        if self._on_device is not None:
            seen, self._on_device = self._on_device, None
            self._add(seen)

    def _add(self, seen: CallStats) -> None:
        """Join one call on the host."""
        before = seen.before
        self._n_positive = self._n_positive + seen.n_positive
        if before.packed_own is not None:
            join_sums(self._packed, "own", before.packed_own)
        if before.classes is not None:
            self._classes.add(before.classes)
        if seen.own_post is None:
            self._extend(before)
        else:
            join_sums(self._packed, "pre", before.reading.packed)
            join_sums(self._packed, "post", seen.own_post)
        self._count(seen)

    def _extend(self, before: InputReading) -> None:
        """Add a call whose output follows from its input."""
        assert before.map is not None
        if self._same_map is not None and self._same_map.covers(before):
            add(self._same_map.pre, before.reading.packed)
            return
        if self._same_map is not None:
            _close(self._same_map, self._packed, self._counts)
        self._same_map = _SameMapCalls(before.map, before.reference, before.reading.packed)

    def _count(self, seen: CallStats) -> None:
        """Add the counts: to those of the same map if they serve both sides, else to each side's own."""
        reference, counts, sums = seen.before.reference, seen.before.pre_counts, self._counts["pre"]
        if seen.own_post is None and seen.before.turns and self._same_map is not None:
            sums = self._same_map.turning
        if counts is not None:
            sums.add(reference.centre, reference.scale, counts)
        if seen.own_counts is not None:
            self._counts["post"].add(reference.beta, unit(reference.gamma), seen.own_counts)

    def finished(self) -> dict[str, Any]:
        """A snapshot of everything that was fetched, by the names of `LayerRecord`'s fields."""
        sums = {name: rows.copy() for name, rows in self._packed.items()}
        counts = {name: one.copy() for name, one in self._counts.items()}
        if self._same_map is not None:
            _close(self._same_map, sums, counts)
        own = halves(sums["own"]) if "own" in sums else (None, None)
        return {
            **recorded(sums),
            "pre": moments_of(sums["pre"]),
            "pre_images": images_of(sums["pre"]),
            "pre_folds": self._folds.finished(),
            "pre_histogram": counts["pre"].histogram(),
            "post": moments_of(sums["post"]),
            "post_histogram": counts["post"].histogram(),
            "n_positive": self._n_positive,
            "own_mean": own[0],
            "own_log_var": own[1],
            "classes": self._classes.finished(),
        }


def _close(calls: _SameMapCalls, sums: dict[str, Array], counts: dict[str, _HistogramSums]) -> None:
    """Add both sides of calls under one map to the totals."""
    join_sums(sums, "pre", calls.pre)
    if "post" not in sums:
        sums["post"] = packed(Moments.empty(calls.pre.shape[1]))
    add_mapped(sums["post"], calls.pre, calls.map)
    for name, histogram in (("pre", calls.turning.histogram()), ("post", calls.turned())):
        if histogram is not None:
            counts[name].add(histogram.centre[0], histogram.scale[0], histogram.counts[0])


def join_sums(sums: dict[str, Array], name: str, new: Array) -> None:
    """Add a packed reading to the sums of this name, which begin with a copy of the first."""
    if name in sums:
        add(sums[name], new)
    else:
        sums[name] = new.copy()  # a copy that may be written to
