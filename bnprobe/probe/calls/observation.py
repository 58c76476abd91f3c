"""What was read of one call of a norm, before and after the layer ran."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls.affine_map import Last, after, nonfinite_after, turned
from bnprobe.probe.calls.copies import NO_COPIES, Copies
from bnprobe.probe.calls.histogram_scale import HistogramScale
from bnprobe.probe.calls.row_values import RowMeans, RowValues
from bnprobe.probe.calls.tokens import TokenReading
from bnprobe.probe.calls.vectors import Vectors
from bnprobe.recording import OutputCheck
from bnprobe.reductions import (
    Affine,
    Counts,
    DeviceReading,
    FoldRows,
    Reading,
    Share,
    Valid,
    join,
    moments_of,
)
from bnprobe.stats import ClassMoments, Moments
from bnprobe.stats.fields import NONFINITE
from bnprobe.stats.moments import Array

Key = tuple[str, int]
"""A site: the path of a layer, and the number of its call in the forward pass."""


@dataclass(slots=True)
class InputReading:
    """What was read of one call before the layer ran.

    Not frozen, as `CallStats` is not: made at every call, and a frozen one takes several times as long.
    """

    plan: NormLayer
    training: bool
    vectors: Vectors
    reference: HistogramScale
    reading: Reading
    map: Affine | None
    rows_own: Array | None
    late: Counts
    share: Share
    turns: bool
    sample: Tensor | None
    inverse_var: Tensor | None
    classes: ClassMoments | None = None
    valid: Valid | None = None
    """The positions that count, if a mask leaves some out: `reading` is of these."""
    whole: Reading | None = None
    """All positions, where a mask leaves some out and they are needed: what the norm itself normalizes with."""
    off_mask: tuple[int, ...] | None = None
    """The sizes of an input that does not have the positions of a mask, so that all of it counts."""
    tokens: TokenReading | None = None
    """Of a norm over channels, what it does to each token."""
    row_means: Array | Tensor | None = None
    """The mean of each (sample, channel), where exemplars are kept."""
    copies: Copies = NO_COPIES
    """Samples that are equal, at the first call."""
    factor: Tensor | None = None
    """What the rows of `sample` are multiplied by after the norm, where a gate does that."""
    by_sample: Array | None = None
    """Of a norm per sample, mean and log variance of each sample, (N, 2 G), where these are asked for."""

    # Properties, not fields: a reading that is still on its device must not be fetched before it is needed.

    @property
    def n_positive(self) -> Array | None:
        """Number of positive values after the norm, if the map determines it."""
        late = self.late.n_positive
        return self.reading.counts.n_positive if late is None else late

    @property
    def seen_by_norm(self) -> Reading:
        """The input as the norm itself sees it, padding included."""
        return self.whole or self.reading

    @property
    def pre_counts(self) -> Array | None:
        """Values before the norm per bin."""
        late = self.late.histogram
        return self.reading.counts.histogram if late is None else late

    @property
    def packed_own(self) -> Array | None:
        """Packed, the two statistics of `own`."""
        return self.reading.packed_per_sample if self.rows_own is None else self.rows_own

    @property
    def own(self) -> tuple[Moments, Moments] | None:
        """Distribution of the mean and of the log variance (+ eps) that the norm itself used."""
        return None if self.packed_own is None else halves(self.packed_own)


@dataclass
class CallStats:
    """One call, reduced to sums: what a site adds to its totals.

    `own_post`, packed, and `own_counts` are what this call had to work out after the norm. They are
    None where it follows from the input: by the one map per channel, `before.map`, and for the counts
    where that `turns` the input's into the output's. `after` is the output, where it was read.
    """

    before: InputReading
    output: str
    mismatch: float
    check: OutputCheck | None = None
    after: Reading | None = None
    derived_post: Array | None = None
    derived_counts: Array | None = None
    row_values: RowMeans | RowValues | None = None
    """What each sample shows after the norm, where exemplars are kept."""

    @property
    def n_positive(self) -> Array:
        """Number of positive values after the norm; zeros if it is unknown."""
        known = self.before.n_positive if self.after is None else self.after.counts.n_positive
        return np.zeros(self.before.plan.n_channels) if known is None else known

    @property
    def own_post(self) -> Array | None:
        """The output's packed reading."""
        return self.derived_post if self.after is None else self.after.packed

    @property
    def own_counts(self) -> Array | None:
        """Values after the norm per bin."""
        return self.derived_counts if self.after is None else self.after.counts.histogram

    @property
    def stays(self) -> bool:
        """Whether all of it is still on its device."""
        if not isinstance(self.before.reading, DeviceReading) or self.before.reading.fetched:
            return False
        if self.after is not None:
            return isinstance(self.after, DeviceReading) and not self.after.fetched
        return self.derived_post is None and self.derived_counts is None

    def joins(self, other: CallStats) -> bool:
        """Whether two calls that stay can become one: under one map, and counted on one scale."""
        one, two = self.before, other.before
        pairs = [(one.reading, two.reading), (self.after, other.after)]
        return (
            one.map is two.map
            and one.reference is two.reference
            and one.turns == two.turns
            and (self.after is None) == (other.after is None)
            and all(
                a.is_like(b)
                for a, b in pairs
                if isinstance(a, DeviceReading) and isinstance(b, DeviceReading)
            )
        )

    def join(self, total: CallStats, fold: FoldRows) -> None:
        """Add this call to one that it joins, and its input to a fold, on the device."""
        pairs = ((self.before.reading, total.before.reading, fold), (self.after, total.after, None))
        for new, sum_, to in pairs:
            if isinstance(new, DeviceReading) and isinstance(sum_, DeviceReading):
                join(sum_, new, to)

    @cached_property
    def post(self) -> Moments:
        """Moments after the norm."""
        if self.own_post is not None:
            return moments_of(self.own_post)
        return after(_mapped(self.before), self.before.reading.moments)

    @property
    def post_nonfinite(self) -> Array:
        """How many values after the norm are not finite."""
        return (
            nonfinite_after(self.before.reading, self.post)
            if self.own_post is None
            else self.own_post[NONFINITE]
        )

    @property
    def post_counts(self) -> Array | None:
        """Values after the norm per bin, on the scale of the site's reference."""
        counts = self.before.pre_counts
        if counts is None or not self.before.turns or self.own_counts is not None:
            return self.own_counts
        return turned(_mapped(self.before), self.before.reference, counts)

    @property
    def n_images(self) -> int:
        """Samples of the call that had a finite value in some channel."""
        return self.before.reading.n_images


def _mapped(before: InputReading) -> Affine:
    assert before.map is not None
    return before.map


def halves(packed_own: Array) -> tuple[Moments, Moments]:
    """The distributions of the mean and the log variance that a norm uses, which are packed side by side."""
    size = packed_own.shape[1] // 2
    return moments_of(packed_own[:, :size]), moments_of(packed_own[:, size:])


def last_of(before: InputReading) -> Last:
    """What the next call of the site can reuse."""
    fixed = before.map if before.plan.uses_running else None
    return Last(before.vectors, before.plan.eps, before.reference, fixed, before.turns)
