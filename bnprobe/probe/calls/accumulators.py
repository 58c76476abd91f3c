"""What a site has seen so far, added up, one call after the other.

Updating is merging. Two things keep it from costing more than reading the tensors. Counts are added
in place, on sheets that belong to the total alone. And calls under one and the same map (every call of
a norm that uses stored statistics) are added on the side of the input only: the affine image of a sum
is the sum of the affine images, so the output's side is worked out once, when it is asked for.

Calls whose readings are still on a GPU are added up there, into one long call, which comes to the host
when it is asked for, or when the next call can no longer join it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnprobe.probe.calls import CallStats, HistogramScale, InputReading, halves, turned, unit
from bnprobe.reductions import Affine, add, add_mapped, images_of, moments_of, packed
from bnprobe.stats import ClassMoments, Histogram, Moments
from bnprobe.stats.fields import recorded
from bnprobe.stats.moments import Array


class _HistogramSums:
    """Counts on one scale or more, added in place: a histogram that can be written on."""

    def __init__(self) -> None:
        self.sheets: list[tuple[Array, Array, Array]] = []

    def add(self, centre: Array, scale: Array, counts: Array) -> None:
        for known, its_scale, total in self.sheets:
            if np.array_equal(known, centre) and np.array_equal(its_scale, scale):
                total += counts
                return
        self.sheets.append((centre, scale, counts.astype(np.float64)))  # a copy

    def copy(self) -> _HistogramSums:
        """Another of the same, to write on."""
        other = _HistogramSums()
        other.sheets = [(centre, scale, counts.copy()) for centre, scale, counts in self.sheets]
        return other

    def histogram(self) -> Histogram | None:
        """A snapshot, which nothing that is added later reaches; None where nothing was counted."""
        if not self.sheets:
            return None
        return Histogram(*(np.stack(parts) for parts in zip(*self.sheets, strict=True)))


@dataclass
class _SameMapCalls:
    """Calls under one map per channel: their input, added up and packed."""

    map: Affine
    reference: HistogramScale
    pre: Array
    """Ours to write on: nobody else keeps a call's reading."""
    turning: _HistogramSums = field(default_factory=_HistogramSums)
    """The input's counts, where those of the output are the same ones, turned."""

    def covers(self, before: InputReading) -> bool:
        """Whether a call is one of this stretch: the same objects are handed on from call to call."""
        return self.map is before.map and self.reference is before.reference

    def turned(self) -> Histogram | None:
        """The output's counts, on the site's own scale to the last digit, so that they add."""
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
        """Join the images of one call; the formula is that of `ClassMoments.merge`, class by class."""
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
        """A snapshot, or None where no label was given."""
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
        self._stretch: _SameMapCalls | None = None
        self._n_positive: Any = 0.0
        self._away: CallStats | None = None
        """Calls that are still on their device, as one."""
        self.n_values = 0.0
        """Values per channel so far."""

    def add(self, seen: CallStats) -> None:
        """Join one call."""
        self.n_values += seen.before.reading.n_values
        if not seen.stays:
            self._add(seen)
        elif self._away is not None and seen.joins(self._away):
            seen.join(self._away)
        else:
            self.fetch()
            self._away = seen

    def fetch(self) -> None:
        """Bring to the host what is still on its device: one transfer."""
        if self._away is not None:
            seen, self._away = self._away, None
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
        """One more call of which the input tells everything."""
        assert before.map is not None
        if self._stretch is not None and self._stretch.covers(before):
            add(self._stretch.pre, before.reading.packed)
            return
        if self._stretch is not None:
            _close(self._stretch, self._packed, self._counts)
        self._stretch = _SameMapCalls(before.map, before.reference, before.reading.packed)

    def _count(self, seen: CallStats) -> None:
        """Add the counts: to the stretch, where they serve both sides, else to each side's own."""
        reference, counts, sheets = seen.before.reference, seen.before.pre_counts, self._counts["pre"]
        if seen.own_post is None and seen.before.turns and self._stretch is not None:
            sheets = self._stretch.turning
        if counts is not None:
            sheets.add(reference.centre, reference.scale, counts)
        if seen.own_counts is not None:
            self._counts["post"].add(reference.beta, unit(reference.gamma), seen.own_counts)

    def finished(self) -> dict[str, Any]:
        """Everything that has come home, by the names of `LayerRecord`'s fields; later calls do not change it."""
        sums = {name: rows.copy() for name, rows in self._packed.items()}
        counts = {name: sheets.copy() for name, sheets in self._counts.items()}
        if self._stretch is not None:
            _close(self._stretch, sums, counts)
        own = halves(sums["own"]) if "own" in sums else (None, None)
        return {
            **recorded(sums),
            "pre": moments_of(sums["pre"]),
            "pre_images": images_of(sums["pre"]),
            "pre_histogram": counts["pre"].histogram(),
            "post": moments_of(sums["post"]),
            "post_histogram": counts["post"].histogram(),
            "n_positive": self._n_positive,
            "own_mean": own[0],
            "own_log_var": own[1],
            "classes": self._classes.finished(),
        }


def _close(stretch: _SameMapCalls, sums: dict[str, Array], counts: dict[str, _HistogramSums]) -> None:
    """Add both sides of a stretch to the totals."""
    join_sums(sums, "pre", stretch.pre)
    if "post" not in sums:
        sums["post"] = packed(Moments.empty(stretch.pre.shape[1]))
    add_mapped(sums["post"], stretch.pre, stretch.map)
    for name, histogram in (("pre", stretch.turning.histogram()), ("post", stretch.turned())):
        if histogram is not None:
            counts[name].add(histogram.centre[0], histogram.scale[0], histogram.counts[0])


def join_sums(sums: dict[str, Array], name: str, new: Array) -> None:
    """Add a packed reading to the sums of this name, which begin with a copy of the first."""
    if name in sums:
        add(sums[name], new)
    else:
        sums[name] = new.copy()  # ours to write on
