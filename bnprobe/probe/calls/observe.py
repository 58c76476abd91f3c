"""Reading one call of a norm: its input before it runs, and its output, where needed, once that exists.

The input is read before the layer runs, because it may work in place, and everything after the norm is
derived from it wherever the map is affine per channel or per (sample, channel). On the first call of a site
the derived map is held against the real output; where they differ, the output is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.calls.affine_map import (
    Last,
    after,
    batch_map,
    by_sample,
    inverse_variance,
    nonfinite_after,
    stored_map,
    turns,
    unchanged_map,
)
from bnprobe.probe.calls.copies import FEWEST_POSITIONS, NO_COPIES, copies_among
from bnprobe.probe.calls.formula_check import choose, loses_digits, sample_of
from bnprobe.probe.calls.histogram_scale import HistogramScale, first_reference, stored_reference
from bnprobe.probe.calls.observation import CallStats, InputReading
from bnprobe.probe.calls.output_check import output_check
from bnprobe.probe.calls.row_values import RowMeans, RowValues, row_means, row_peaks
from bnprobe.probe.calls.tokens import read_tokens
from bnprobe.probe.calls.vectors import Vectors
from bnprobe.probe.masks import Kept
from bnprobe.reductions import (
    WHOLE,
    DeviceReading,
    PerSample,
    Reading,
    ReadRequest,
    Share,
    Valid,
    count_valid,
    packed,
    read,
    read_valid,
)
from bnprobe.stats import ClassMoments, Moments
from bnprobe.stats.moments import Array


def observe_before(
    plan: NormLayer,
    vectors: Vectors,
    x: Tensor,
    training: bool,
    initial: Vectors,
    reference: HistogramScale | None,
    histograms: bool,
    keep_sample: bool,
    for_gradient: bool = False,
    share: Share = WHOLE,
    last: Last | None = None,
    labels: Array | None = None,
    mask: Kept | None = None,
    exemplars: bool = False,
    gate: Tensor | None = None,
    keep_samples: bool = False,
) -> InputReading:
    """Read the input of one call of a layer that now has these `vectors`.

    `initial` holds the layer's vectors at its very first call; `reference` is None at the first call
    of a site, which sets it. `share` is what the histograms count, `last` what the site kept of its
    last call. `labels` (N,) are the samples' classes; a norm that sees the samples otherwise cut has none. What
    `mask` leaves out is not read, except for what the norm itself computes with it. `exemplars` asks for what each sample
    shows, `keep_samples` for what the norm computes in each. Of a norm that multiplies its input by a `gate` the product is
    read.
    """
    x, factor = _gated(plan, x.detach(), gate)
    rows = plan.rows(x)
    placed, valid = (True, None) if mask is None else mask.on(plan, x)
    reference = reference or stored_reference(initial, vectors, plan.eps)
    fixed = None
    if plan.uses_running:
        fixed = unchanged_map(last, plan, vectors) or stored_map(plan, vectors)
    pool, computes = plan.pool, not plan.uses_running
    per_sample = computes and pool.positions and not pool.samples
    # the kernels take the statistics of a position over all channels
    per_position = computes and not pool.positions and plan.n_groups == 1
    n_samples = len(rows) if valid is None else valid.n_samples
    labels = labels if labels is not None and len(labels) == n_samples else None
    # of a norm that uses its batch, the samples of the first call are laid beside each other
    beside = keep_sample and pool.samples and rows.shape[2] >= FEWEST_POSITIONS
    request = ReadRequest(
        origin=reference.centre if reference else None,
        gate=fixed,
        bins=reference.input_bins if histograms and reference else None,
        share=share,
        per_sample=PerSample(plan.eps, plan.centred) if per_position else None,
        keep_rows=per_sample or labels is not None or exemplars or beside,
    )
    reading = read_valid(rows, valid, request)
    whole = None
    if valid is not None and (keep_sample or (computes and pool.positions)):
        whole = read(rows, ReadRequest(keep_rows=per_sample))
    classes = None
    means = row_means(reading) if exemplars else None
    if labels is not None and reading.rows is not None:
        classes = ClassMoments.of(reading.rows, labels)
    copies = NO_COPIES if not beside or isinstance(reading, DeviceReading) else copies_among(reading.rows)
    if request.keep_rows and not per_sample:
        # rows kept for classes, exemplars or copies only would be taken for the statistics of a norm per sample
        reading = reading.without_rows()
    used = whole or reading
    mapping = fixed or batch_map(plan, vectors, used, rows.shape[2])
    late_gate = mapping if fixed is None else None
    late_bins = None
    if reference is None:  # only now is there a scale to count on
        reference = first_reference(vectors, plan.eps, reading.moments)
        reading = reading.about(reference.centre)
        late_bins = reference.input_bins if histograms else None
    late = count_valid(rows, valid, late_gate, late_bins, share)
    own = by_sample(plan, used if per_sample else reading, rows.shape[2])
    return InputReading(
        plan,
        training,
        vectors,
        reference,
        reading,
        mapping,
        None if own is None else packed(Moments.of(own)),
        late,
        share,
        turns(fixed, reference, last),
        sample_of(rows) if keep_sample else None,
        inverse_variance(plan, rows) if mapping is None and for_gradient else None,
        classes,
        valid,
        whole,
        None if placed else tuple(x.shape),
        None if reading.tokens is None else read_tokens(plan, plan.places(x), rows, reading.tokens),
        means,
        copies,
        sample_of(plan.rows(factor)) if keep_sample and factor is not None else None,
        own if keep_samples else None,
    )


def _gated(plan: NormLayer, x: Tensor, gate: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a norm normalizes, and what it multiplies its output by; None for nothing."""
    if plan.gate is None or gate is None or gate.shape != x.shape:
        return x, None
    factor = plan.gate.factor(gate.detach())
    return (x * factor, None) if plan.gate.before else (x, factor)


def observe_after(
    before: Sequence[InputReading],
    y: object,
    settled: str | None,
    histograms: bool,
    floor: Array | None = None,
) -> CallStats:
    """Complete one call once the output exists.

    `before` holds one reading per plan that may fit; `settled` is the site's way to the output
    ("derived" or "read"), or None at its first call, where the plans are tried; `floor` are the scores (2, C) below which
    no exemplar is kept.
    """
    best, mismatch, check = before[0], float("nan"), None
    if settled is None:
        best, mismatch, fits = choose(before, y)
        check = output_check(best, y, fits)
        exact = fits and not loses_digits(best)
        settled = "derived" if best.map is not None and (exact or not np.isfinite(mismatch)) else "read"
    if best.sample is not None:
        best = replace(best, sample=None, factor=None)
    if settled == "read" and isinstance(y, Tensor) and y.is_floating_point() and best.plan.fits(y):
        seen = _read_output(best, y, mismatch, histograms, floor)
    else:
        seen = _derive_output(best, y, mismatch, histograms)
    seen.check = check
    return seen


def _derive_output(before: InputReading, y: object, mismatch: float, histograms: bool) -> CallStats:
    """The output's statistics as the affine image of the input's."""
    reading, mapping = before.reading, before.map
    if mapping is None:  # a map that varies inside a row, and an output that cannot be read
        nothing = packed(Moments.empty((before.plan.n_channels,)))
        return CallStats(before, "read", mismatch, derived_post=nothing)
    counts = None
    if histograms and not before.turns and isinstance(y, Tensor) and before.plan.fits(y):
        rows = before.plan.rows(y.detach())
        counts = count_valid(rows, before.valid, None, before.reference.output_bins, before.share).histogram
    own = None
    if reading.rows is not None:
        post = after(mapping, reading.rows).pool()
        own = packed(post, nonfinite=nonfinite_after(reading, post))
    values = None if before.row_means is None else RowMeans(before.row_means, mapping)
    return CallStats(before, "derived", mismatch, derived_post=own, derived_counts=counts, row_values=values)


def _read_output(
    before: InputReading, y: Tensor, mismatch: float, histograms: bool, floor: Array | None
) -> CallStats:
    """The output's statistics from the output itself."""
    rows, reference = before.plan.rows(y.detach()), before.reference
    request = ReadRequest(
        origin=reference.beta,
        gate=reference.itself,
        bins=reference.output_bins if histograms else None,
        share=before.share,
        keep_rows=before.row_means is not None,
    )
    reading, values = read_valid(rows, before.valid, request), None
    if request.keep_rows:
        values = _shown(before.plan, y, before.valid, reading, floor)
        reading = reading.without_rows()
    return CallStats(before, "read", mismatch, after=reading, row_values=values)


def _shown(
    plan: NormLayer, y: Tensor, valid: Valid | None, reading: Reading, floor: Array | None
) -> RowMeans | RowValues:
    """What each sample shows in an output that was read."""
    lone = valid is None and plan.rows(y).shape[2] == 1
    if plan.pool.positions or lone:
        return RowMeans(row_means(reading))
    return row_peaks(plan, y, valid, reading, floor)
