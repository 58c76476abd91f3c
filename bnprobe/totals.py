"""What a site has seen so far, added up, one call after the other.

Updating is merging. Two things keep it from costing more than reading the tensors. Counts are added
in place, on sheets that belong to the total alone. And calls under one and the same map (every call of
a norm that uses stored statistics) are added on the side of the input only: the affine image of a sum
is the sum of the affine images, so the output's side is worked out once, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from bnprobe.condense import Affine
from bnprobe.observation import Before, Reference, Seen, after, turned, unit
from bnprobe.stats import Histogram, ImageMoments, Moments
from bnprobe.stats.moments import Array


class _Sheets:
    """Counts on one scale or more, added in place: a histogram that can be written on."""

    def __init__(self) -> None:
        self.sheets: list[tuple[Array, Array, Array]] = []

    def add(self, centre: Array, scale: Array, counts: Array) -> None:
        for known, its_scale, total in self.sheets:
            if np.array_equal(known, centre) and np.array_equal(its_scale, scale):
                total += counts
                return
        self.sheets.append((centre, scale, counts.astype(np.float64)))  # a copy

    def histogram(self) -> Histogram | None:
        """A snapshot, which nothing that is added later reaches; None where nothing was counted."""
        if not self.sheets:
            return None
        return Histogram(*(np.stack(parts) for parts in zip(*self.sheets, strict=True)))


@dataclass
class _Stretch:
    """Calls under one map per channel: their input, added up."""

    map: Affine
    reference: Reference
    pre: Moments
    nonfinite: Array
    turning: _Sheets = field(default_factory=_Sheets)
    """The input's counts, where those of the output are the same ones, turned."""

    def covers(self, before: Before) -> bool:
        """Whether a call is one of this stretch: the same objects are handed on from call to call."""
        return self.map is before.map and self.reference is before.reference

    def sums(self) -> dict[str, Any]:
        """Both sides, by the names of `LayerRecord`'s fields."""
        post, counts = after(self.map, self.pre), self.turning.histogram()
        return {
            "pre": self.pre,
            "pre_nonfinite": self.nonfinite,
            "post": post,
            "post_nonfinite": self.pre.n + self.nonfinite - post.n,
            "pre_histogram": counts,
            "post_histogram": None if counts is None else self._turned(counts),
        }

    def _turned(self, counts: Histogram) -> Histogram:
        """The output's counts, on the site's own scale to the last digit, so that they add."""
        reference = self.reference
        there = turned(self.map, reference, counts.counts[0])
        return Histogram(reference.beta[None], unit(reference.gamma)[None], there[None])


class Totals:
    """The running totals of a site: `add` a call, and `finished` for what its record holds."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._pre, self._post = _Sheets(), _Sheets()
        self._stretch: _Stretch | None = None
        self.n_values = 0.0
        """Values per channel so far."""

    def add(self, seen: Seen) -> None:
        """Join one call."""
        before = seen.before
        self.n_values += float(before.reading.moments.n.max(initial=0))
        self._join(
            {
                "pre_images": before.reading.images,
                "n_positive": seen.n_positive,
                "own_mean": before.own[0] if before.own else None,
                "own_log_var": before.own[1] if before.own else None,
            }
        )
        if seen.own_post is None:
            self._extend(before)
        else:
            pre, (post, post_nonfinite) = before.reading, seen.own_post
            self._join(
                {
                    "pre": pre.moments,
                    "pre_nonfinite": pre.n_nonfinite,
                    "post": post,
                    "post_nonfinite": post_nonfinite,
                }
            )
        self._count(seen)

    def _extend(self, before: Before) -> None:
        """One more call of which the input tells everything."""
        assert before.map is not None
        reading, stretch = before.reading, self._stretch
        if stretch is not None and stretch.covers(before):
            stretch.pre = stretch.pre.merge(reading.moments)
            stretch.nonfinite = stretch.nonfinite + reading.n_nonfinite
            return
        if stretch is not None:
            self._join(stretch.sums())
        self._stretch = _Stretch(before.map, before.reference, reading.moments, reading.n_nonfinite)

    def _count(self, seen: Seen) -> None:
        """Add the counts: to the stretch, where they serve both sides, else to each side's own."""
        reference, counts, sheets = seen.before.reference, seen.before.pre_counts, self._pre
        if seen.own_post is None and seen.before.turns and self._stretch is not None:
            sheets = self._stretch.turning
        if counts is not None:
            sheets.add(reference.centre, reference.scale, counts)
        if seen.own_counts is not None:
            self._post.add(reference.beta, unit(reference.gamma), seen.own_counts)

    def _join(self, news: Mapping[str, Any]) -> None:
        for name, new in news.items():
            self._sums[name] = _joined(self._sums.get(name), new)

    def finished(self) -> dict[str, Any]:
        """Everything so far, by the names of `LayerRecord`'s fields; later calls do not change it."""
        open_ = self._stretch.sums() if self._stretch else {}
        counts = {"pre_histogram": self._pre.histogram(), "post_histogram": self._post.histogram()}
        names = dict.fromkeys([*self._sums, *open_, *counts])
        return {
            name: reduce(_joined, (part.get(name) for part in (self._sums, open_, counts))) for name in names
        }


def _joined(total: Any, new: Any) -> Any:
    if total is None or new is None:
        return new if total is None else total
    return total.merge(new) if isinstance(total, Moments | ImageMoments | Histogram) else total + new
