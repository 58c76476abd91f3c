"""One call of a norm, condensed: the plan of the layer applied to the tensors of the call.

The input is read before the layer runs (it may work in place), and everything after the norm is
derived from it wherever the map is affine per channel or per (sample, channel). On the first call
of a site the derived map is held against the real output; where they differ, the output is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bnprobe.condense import (
    WHOLE,
    Affine,
    Counts,
    Own,
    Reading,
    Resident,
    Share,
    count,
    join,
    moments_of,
    own_array,
    packed,
    read,
)
from bnprobe.condense.packed import BAD
from bnprobe.norms import NormLayer
from bnprobe.recording import CHANNELS, GROUP, INSTANCE
from bnprobe.stats import ClassMoments, Histogram, Moments
from bnprobe.stats.moments import Array

CHECKED_VALUES = 1 << 18
"""Values compared at the first call of a site: whole samples, at least one."""

COUNTED_WHOLE = 1 << 12
"""Values per channel up to which a site's histograms count everything; see `share_of`."""

COUNTED_EVERY = 4
"""From then on they count every so many-th image: counting a value costs more than reading it."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Largest difference between real and derived output, in units of the largest output."""


@dataclass(frozen=True)
class Reference:
    """What a site counts against, fixed at its first call so that counts add; each of shape (C,).

    `centre` and `scale` place the histogram of the input; they are the running statistics where
    the layer has usable ones, else the first batch's. `beta` and `gamma` place the output's.
    """

    centre: Array
    scale: Array
    beta: Array
    gamma: Array

    @cached_property
    def input_bins(self) -> Affine:
        """The map that places the histogram of the input."""
        return Affine(self.centre, 1 / self.scale, np.zeros_like(self.centre))

    @cached_property
    def itself(self) -> Affine:
        """The map that changes nothing."""
        zeros = np.zeros_like(self.beta)
        return Affine(zeros, zeros + 1, zeros)

    @cached_property
    def output_bins(self) -> Affine:
        """The map that places the histogram of the output."""
        return Affine(self.beta, 1 / unit(self.gamma), np.zeros_like(self.beta))


@dataclass(frozen=True)
class Vectors:
    """The learned and stored vectors of a layer at one call, float64 of shape (C,), or None."""

    gamma: Array | None
    beta: Array | None
    running_mean: Array | None
    running_var: Array | None


@dataclass(frozen=True)
class Last:
    """What a site keeps of its last call, because the next one mostly finds it unchanged."""

    vectors: Vectors
    eps: float
    reference: Reference
    map: Affine | None
    turns: bool


@dataclass(slots=True)
class Before:
    """What is known of one call before the layer has run.

    Not frozen, as `Seen` is not: made at every call, and a frozen one takes several times as long.
    """

    plan: NormLayer
    training: bool
    vectors: Vectors
    reference: Reference
    reading: Reading
    map: Affine | None
    rows_own: Array | None
    late: Counts
    share: Share
    turns: bool
    sample: Tensor | None
    inverse_var: Tensor | None
    classes: ClassMoments | None = None

    # Properties and not fields: a reading that is still on its device is not to be looked at before it must.

    @property
    def n_positive(self) -> Array | None:
        """Values after the norm that are positive, where the map tells them."""
        late = self.late.n_positive
        return self.reading.counts.n_positive if late is None else late

    @property
    def pre_counts(self) -> Array | None:
        """Values before the norm per bin."""
        late = self.late.histogram
        return self.reading.counts.histogram if late is None else late

    @property
    def packed_own(self) -> Array | None:
        """Packed, the two statistics of `own`."""
        return self.reading.packed_own if self.rows_own is None else self.rows_own

    @property
    def own(self) -> tuple[Moments, Moments] | None:
        """Distribution of the mean and of the log variance (+ eps) that the norm itself used."""
        return None if self.packed_own is None else halves(self.packed_own)


@dataclass
class Seen:
    """One call, condensed: what a site adds to its total.

    `own_post`, packed, and `own_counts` are what this call had to work out after the norm. They are
    None where it follows from the input: by the one map per channel, `before.map`, and for the counts
    where that `turns` the input's into the output's. `after` is the output, where it was read.
    """

    before: Before
    output: str
    mismatch: float
    after: Reading | None = None
    derived_post: Array | None = None
    derived_counts: Array | None = None

    @property
    def n_positive(self) -> Array:
        """Values after the norm that are positive; zeros where they could not be known."""
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
        if not isinstance(self.before.reading, Resident) or self.before.reading.fetched:
            return False
        if self.after is not None:
            return isinstance(self.after, Resident) and not self.after.fetched
        return self.derived_post is None and self.derived_counts is None

    def joins(self, other: Seen) -> bool:
        """Whether two calls that stay can become one: under one map, and counted on one scale."""
        one, two = self.before, other.before
        pairs = [(one.reading, two.reading), (self.after, other.after)]
        return (
            one.map is two.map
            and one.reference is two.reference
            and one.turns == two.turns
            and (self.after is None) == (other.after is None)
            and all(a.is_like(b) for a, b in pairs if isinstance(a, Resident) and isinstance(b, Resident))
        )

    def join(self, total: Seen) -> None:
        """Add this call to one that it joins, on the device."""
        for new, sum_ in ((self.before.reading, total.before.reading), (self.after, total.after)):
            if isinstance(new, Resident) and isinstance(sum_, Resident):
                join(sum_, new)

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
            nonfinite_after(self.before.reading, self.post) if self.own_post is None else self.own_post[BAD]
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
        """Samples of the call: the images that had a finite value in some channel."""
        return self.before.reading.n_images


def halves(packed_own: Array) -> tuple[Moments, Moments]:
    """The two statistics of a norm's own, which lie side by side."""
    size = packed_own.shape[1] // 2
    return moments_of(packed_own[:, :size]), moments_of(packed_own[:, size:])


def last_of(before: Before) -> Last:
    """What the next call of the site can use again."""
    fixed = before.map if before.plan.uses_running else None
    return Last(before.vectors, before.plan.eps, before.reference, fixed, before.turns)


def share_of(n_values: float, n_images: int) -> Share:
    """What the histograms of a site count of its next call, after `n_values` per channel and `n_images`.

    Everything until COUNTED_WHOLE values of a channel were seen, so that small data lose nothing; then
    every fourth image of the stream. Moments and extremes always see everything.
    """
    return Share() if n_values < COUNTED_WHOLE else Share(COUNTED_EVERY, n_images % COUNTED_EVERY)


def vectors_of(plan: NormLayer) -> Vectors:
    """Copies of the layer's vectors; gamma with the plan's offset (1 + w in some RMS norms)."""
    return Vectors(
        vector_of(plan.weight, plan.weight_offset),
        vector_of(plan.bias),
        vector_of(plan.running_mean),
        vector_of(plan.running_var),
    )


def vector_of(tensor: Tensor | None, added: float = 0.0) -> Array | None:
    """A copy of the tensor in float64, shape (C,), with `added` to every entry."""
    if tensor is None:
        return None
    vector: Array = own_array(tensor)
    return vector + added if added else vector


def _unchanged_map(last: Last | None, plan: NormLayer, vectors: Vectors) -> Affine | None:
    """The map of the last call, if it holds for this one."""
    return last.map if last is not None and last.vectors is vectors and last.eps == plan.eps else None


def observe_before(
    plan: NormLayer,
    vectors: Vectors,
    x: Tensor,
    training: bool,
    memory: Vectors,
    reference: Reference | None,
    histograms: bool,
    keep_sample: bool,
    for_gradient: bool = False,
    share: Share = WHOLE,
    last: Last | None = None,
    labels: Array | None = None,
) -> Before:
    """Read the input of one call of a layer that now has these `vectors`.

    `memory` holds the layer's vectors at its first call ever; `reference` is None at the first call
    of a site, which sets it. `share` is what the histograms count, `last` what the site kept of its
    last call. `labels` (N,) are the samples' classes; a norm that sees the samples otherwise cut has none.
    """
    rows = plan.rows(x.detach())
    reference = reference or _stored_reference(memory, vectors, plan.eps)
    fixed = None
    if plan.uses_running:
        fixed = _unchanged_map(last, plan, vectors) or _stored_map(plan, vectors)
    per_sample = plan.pools in (INSTANCE, GROUP) and not plan.uses_running
    labels = labels if labels is not None and len(labels) == len(rows) else None
    reading = read(
        rows,
        origin=reference.centre if reference else None,
        gate=fixed,
        bins=reference.input_bins if histograms and reference else None,
        share=share,
        own=Own(plan.eps, plan.centred) if plan.pools == CHANNELS and not plan.uses_running else None,
        keep_rows=per_sample or labels is not None,
    )
    classes = None
    if labels is not None and reading.rows is not None:
        classes = ClassMoments.of(reading.rows, labels)
        # rows that no one else asked for would be taken for those of a norm per sample
        reading = reading if per_sample else replace(reading, rows=None)
    mapping = fixed or _batch_map(plan, vectors, reading, rows.shape[2])
    late_gate = mapping if fixed is None else None
    late_bins = None
    if reference is None:  # only now is there something to count against
        reference = _first_reference(vectors, plan.eps, reading.moments)
        reading = reading.about(reference.centre)
        late_bins = reference.input_bins if histograms else None
    late = count(rows, late_gate, late_bins, share)
    return Before(
        plan,
        training,
        vectors,
        reference,
        reading,
        mapping,
        _own(plan, reading, rows.shape[2]),
        late,
        share,
        _turns(fixed, reference, last),
        _sample(rows) if keep_sample else None,
        _inverse_variance(plan, rows) if mapping is None and for_gradient else None,
        classes,
    )


def _inverse_variance(plan: NormLayer, rows: Tensor) -> Tensor:
    """1 / (var + eps) at each position of a norm over channels, shape (N, 1, P), float64."""
    x = rows.to(torch.float64)
    mean = x.mean(1, keepdim=True) if plan.centred else torch.zeros_like(x[:, :1])
    return 1 / (((x - mean) ** 2).mean(1, keepdim=True) + plan.eps)


def observe_after(before: Sequence[Before], y: object, settled: str | None, histograms: bool) -> Seen:
    """Finish one call once the output is there.

    `before` holds one reading per plan that may fit; `settled` is the site's way to the output
    ("derived" or "read"), or None at its first call, where the plans are tried.
    """
    best, mismatch = before[0], float("nan")
    if settled is None:
        best, mismatch, fits = _choose(before, y)
        settled = "derived" if best.map is not None and (fits or not np.isfinite(mismatch)) else "read"
    if best.sample is not None:
        best = replace(best, sample=None)
    if settled == "read" and isinstance(y, Tensor) and y.is_floating_point() and best.plan.fits(y):
        return _read_output(best, y, mismatch, histograms)
    return _derive_output(best, y, mismatch, histograms)


def _choose(before: Sequence[Before], y: object) -> tuple[Before, float, bool]:
    """The first plan that reproduces the output, its mismatch, and True; else the first plan, and False.

    Not the nearest one: an activation fused into the module moves the output away from every plan, and
    then nearness says nothing about which of them normalized.
    """
    for tried in before:
        gap = _mismatch(tried, y)
        if gap <= _tolerance(tried, y):
            return tried, gap, True
    return before[0], _mismatch(before[0], y), False


def _derive_output(before: Before, y: object, mismatch: float, histograms: bool) -> Seen:
    """The output's statistics as the affine image of the input's."""
    reading, mapping = before.reading, before.map
    if mapping is None:  # a map that varies inside a row, and an output that cannot be read
        nothing = packed(Moments.empty((before.plan.n_channels,)))
        return Seen(before, "read", mismatch, derived_post=nothing)
    counts = None
    if histograms and not before.turns and isinstance(y, Tensor) and before.plan.fits(y):
        rows = before.plan.rows(y.detach())
        counts = count(rows, None, before.reference.output_bins, before.share).histogram
    own = None
    if reading.rows is not None:
        post = after(mapping, reading.rows).pool()
        own = packed(post, bad=nonfinite_after(reading, post))
    return Seen(before, "derived", mismatch, derived_post=own, derived_counts=counts)


def _mapped(before: Before) -> Affine:
    assert before.map is not None
    return before.map


def after(map_: Affine, pre: Moments) -> Moments:
    """Moments after a map, from those before it."""
    return pre.affine(map_.scale, map_.offset, map_.origin)


def nonfinite_after(before: Reading, post: Moments) -> Array:
    """How many values a map made or left not finite."""
    return before.moments.n + before.n_nonfinite - post.n


def turned(map_: Affine, reference: Reference, counts: Array) -> Array:
    """Counts of the output on its own scale, where the map turns the input's reference into the output's."""
    there = Histogram(reference.centre[None], reference.scale[None], counts[None])
    counts_there: Array = there.affine(map_.scale, map_.offset, map_.origin).counts[0]
    return counts_there


def _turns(fixed: Affine | None, reference: Reference, last: Last | None) -> bool:
    """Whether the output's counts, on the scale of (beta, gamma), are the input's counts, turned.

    So when the map takes the input's reference to the output's: stored statistics, unchanged since
    the first call.
    """
    if fixed is None:
        return False
    if last is not None and last.map is fixed and last.reference is reference:
        return last.turns
    if not np.array_equal(fixed.origin, reference.centre):
        return False
    flat = fixed.scale == 0
    scale = np.where(flat, 1.0, np.abs(fixed.scale) * reference.scale)
    return np.array_equal(fixed.offset, reference.beta) and np.allclose(
        scale, unit(reference.gamma), rtol=1e-12, atol=0
    )


def _read_output(before: Before, y: Tensor, mismatch: float, histograms: bool) -> Seen:
    """The output's statistics from the output itself."""
    rows, reference = before.plan.rows(y.detach()), before.reference
    reading = read(
        rows,
        origin=reference.beta,
        gate=reference.itself,
        bins=reference.output_bins if histograms else None,
        share=before.share,
    )
    return Seen(before, "read", mismatch, after=reading)


def _stored_reference(memory: Vectors, vectors: Vectors, eps: float) -> Reference | None:
    """Places for the counts from the running statistics; None where the layer has none.

    They come before any batch, so that recordings of one checkpoint count against the same scale.
    """
    mean, var = memory.running_mean, memory.running_var
    if mean is None or var is None:
        return None
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(mean) & np.isfinite(var) & (var + eps > 0)
        # a poisoned channel gets a scale of its own kind, the same in every recording
        return _reference(vectors, np.where(usable, mean, 0.0), np.sqrt(np.where(usable, var + eps, 1.0)))


def _first_reference(vectors: Vectors, eps: float, seen: Moments) -> Reference:
    """Places for the counts from the first batch."""
    return _reference(vectors, seen.mean, np.sqrt(seen.m2 / np.maximum(seen.n, 1) + eps))


def _reference(vectors: Vectors, centre: Array, sd: Array) -> Reference:
    gamma = np.ones_like(centre) if vectors.gamma is None else vectors.gamma
    beta = np.zeros_like(centre) if vectors.beta is None else vectors.beta
    return Reference(centre, unit(sd), np.where(np.isfinite(beta), beta, 0.0), gamma)


def unit(scale: Array) -> Array:
    """A usable positive scale: |scale|, or 1 where it is zero or not finite."""
    return np.where(np.isfinite(scale) & (scale != 0), np.abs(scale), 1.0)


def _stored_map(plan: NormLayer, vectors: Vectors) -> Affine:
    """The one affine map per channel of a norm that uses its running statistics."""
    gamma, beta = _gamma_beta(plan, vectors)
    assert vectors.running_mean is not None
    assert vectors.running_var is not None
    with np.errstate(invalid="ignore", divide="ignore"):
        return Affine(vectors.running_mean, gamma / np.sqrt(vectors.running_var + plan.eps), beta)


def _batch_map(plan: NormLayer, vectors: Vectors, reading: Reading, n_positions: int) -> Affine | None:
    """The affine map of this call, per channel or per (sample, channel); None where it varies inside a row.

    NaN where a non-finite value entered the statistics that normalize, as in the real output.
    """
    if plan.pools == CHANNELS:
        return None
    mean, square = _normalizing(plan, reading, n_positions)
    if plan.pools == GROUP:
        mean, square = (np.repeat(v, plan.n_channels // plan.n_groups, axis=1) for v in (mean, square))
    gamma, beta = _gamma_beta(plan, vectors)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gamma / np.sqrt(square + plan.eps)
    offset = beta if scale.ndim == 1 else np.broadcast_to(beta, scale.shape)
    return Affine(mean if plan.centred else np.zeros_like(mean), scale, offset)


def _normalizing(plan: NormLayer, reading: Reading, n_positions: int) -> tuple[Array, Array]:
    """Mean and variance (mean square where not centred) with which the call normalizes itself.

    Of shape (C,) for a batch, (N, C) per instance, (N, G) per group; NaN where a value was not finite.
    """
    used, whole = reading.moments, reading.n_nonfinite == 0
    if reading.rows is not None:
        used, whole = reading.rows, reading.rows.n == n_positions
    if plan.pools == GROUP:
        groups = (-1, plan.n_groups, plan.n_channels // plan.n_groups)
        used, whole = used.reshape(*groups).pool(axis=2), whole.reshape(groups).all(axis=2)
    mean, var = used.mean, used.m2 / np.maximum(used.n, 1)
    usable = whole & (used.n > 0)
    if not usable.all():
        mean, var = np.where(usable, mean, np.nan), np.where(usable, var, np.nan)
    return mean, var if plan.centred else var + mean**2


def _gamma_beta(plan: NormLayer, vectors: Vectors) -> tuple[Array, Array]:
    """The learned vectors, with 1 and 0 in place of what the layer does not have."""
    gamma = np.ones(plan.n_channels) if vectors.gamma is None else vectors.gamma
    return gamma, np.zeros(plan.n_channels) if vectors.beta is None else vectors.beta


def _own(plan: NormLayer, reading: Reading, n_positions: int) -> Array | None:
    """Distribution over samples of the mean and the log variance (+ eps) that the norm itself uses, packed.

    None for norms over channels, whose reading has it; of shape (G,) per group, (C,) per channel for
    instance norm. Samples in which a value was not finite have no such statistics, and are left out.
    """
    if reading.rows is None:
        return None
    mean, var = _normalizing(plan, reading, n_positions)
    with np.errstate(divide="ignore"):
        return packed(Moments.of(np.concatenate([mean, np.log(var + plan.eps)], axis=1)))


def _sample(rows: Tensor) -> Tensor:
    """A copy of the first samples, to hold the derived output against the real one."""
    per_sample = max(rows.shape[1] * rows.shape[2], 1)
    return rows[: max(CHECKED_VALUES // per_sample, 1)].clone()


def _mismatch(before: Before, y: object) -> float:
    """Largest difference between formula and output on the sample, in units of the largest output.

    Infinite where the output cannot be compared; NaN never (non-finite values are left out).
    """
    plan, x = before.plan, before.sample
    if x is None or not isinstance(y, Tensor) or not y.is_floating_point() or not plan.fits(y):
        return float("inf")
    real = plan.rows(y.detach())[: x.shape[0]].to(torch.float64)
    if real.shape != x.shape:
        return float("inf")
    expected = _expected(before, x.to(torch.float64))
    both = torch.isfinite(real) & torch.isfinite(expected)
    if not both.any():
        return 0.0 if not torch.isfinite(real).any() else float("inf")
    gap = (real - expected)[both].abs().amax()
    return float(gap / real[both].abs().amax().clamp(min=1e-30))


def _expected(before: Before, x: Tensor) -> Tensor:
    """The output that the plan's formula gives for rows x, float64."""
    if before.map is not None:
        return before.map[: x.shape[0]].on(x)
    plan, vectors = before.plan, before.vectors
    mean = x.mean(1, keepdim=True) if plan.centred else torch.zeros_like(x[:, :1])
    square = ((x - mean) ** 2).mean(1, keepdim=True)
    gamma, beta = (torch.tensor(v, device=x.device)[:, None] for v in _gamma_beta(plan, vectors))
    return (x - mean) / torch.sqrt(square + plan.eps) * gamma + beta


def _tolerance(before: Before, y: object) -> float:
    """What rounding can explain: of the output itself, and of an input far from zero before centring."""
    if not isinstance(y, Tensor) or before.sample is None:
        return 0.0
    base = TOLERANCE.get(y.dtype, 1e-4)
    if before.map is None:
        return base
    epsilon = float(torch.finfo(y.dtype).eps) if y.is_floating_point() else 0.0
    reading, mapping = before.reading.moments, before.map
    far = np.where(reading.n > 0, np.maximum(np.abs(reading.low), np.abs(reading.high)), 0.0)
    moved = np.abs(np.where(np.isfinite(mapping.scale), mapping.scale, 0.0)) * far
    y = y.detach()
    finite = y[torch.isfinite(y)]
    largest = float(finite.abs().amax()) if finite.numel() else 1.0
    return base + 8 * epsilon * float(moved.max(initial=0.0)) / max(largest, 1e-30)
