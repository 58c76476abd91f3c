"""The reference: two passes in float64, in plain torch operations, on whatever device x lives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnprobe.reductions.packing import packed
from bnprobe.reductions.reading import Counts, Reading, Tokens, float64_copy
from bnprobe.reductions.request import BASIC, WHOLE, Affine, PerSample, ReadRequest, Share
from bnprobe.stats import N_BINS, ImageMoments, Moments
from bnprobe.stats.fields import SUMS
from bnprobe.stats.histogram import BINS_PER_OCTAVE, N_OCTAVES, SIDE
from bnprobe.stats.moments import Array

CHUNK = 1 << 22
"""Values turned into float64 at a time: 32 MB, so that RAM does not follow the batch size."""


def can_read(x: Tensor) -> bool:
    """Whether this tensor can be read: always."""
    return True


def read(x: Tensor, request: ReadRequest = BASIC) -> Reading:
    """Everything that one read of x, shape (N, C, P), can tell."""
    origin, gate, bins, share, per_sample, keep_rows = request
    _, n_channels, n_positions = x.shape
    lone = n_positions == 1 and not keep_rows
    # one value per image: rows of one value would be larger than x itself, so turn the tensor round
    parts = [_row_moments(part.transpose(0, 2) if lone else part) for part in _chunks(x)]
    rows = Moments.concatenate([part for part, _ in parts]) if parts else Moments.empty((0, n_channels))
    moments = rows.pool()
    about = moments.mean if origin is None else origin
    images = ImageMoments.of_values(moments, about) if lone else ImageMoments.of(rows, about)
    counts = count(x, gate, bins, share)
    sums: dict[str, Any] = {
        name: sum(part[name] for _, part in parts) for name in (parts[0][1] if parts else ())
    }
    seen = tokens(x, per_sample) if per_sample else None
    return Reading(
        packed(moments, images, **sums, positive=counts.n_positive),
        counts,
        rows if keep_rows else None,
        np.concatenate([packed(m) for m in positions(seen)], axis=1) if seen else None,
        seen,
    )


def _chunks(x: Tensor) -> Iterator[Tensor]:
    """Some samples at a time, at least one, so that the float64 copies stay small."""
    per_sample = max(x.shape[1] * x.shape[2], 1)
    step = max(CHUNK // per_sample, 1)
    for start in range(0, x.shape[0], step):
        yield x[start : start + step]


def _row_moments(x: Tensor) -> tuple[Moments, dict[str, Array]]:
    """Moments over positions of each (sample, channel), and what adds up per channel (see `stats.fields`)."""
    x64 = _float64(x)
    seen = torch.isfinite(x64)
    whole = bool(seen.all())
    n = torch.full(x64.shape[:2], float(x64.shape[2]), dtype=torch.float64) if whole else seen.sum(2).double()
    n = n.to(x64.device)
    x0 = x64 if whole else torch.where(seen, x64, 0.0)
    # the mean of deviations from the first mean: its last digits survive data far from zero
    mean = x0.sum(2) / n.clamp(min=1)
    d = x0 - mean[..., None]
    d = d if whole else torch.where(seen, d, 0.0)
    mean = mean + d.sum(2) / n.clamp(min=1)
    d = x0 - mean[..., None]
    d = d if whole else torch.where(seen, d, 0.0)
    d2 = d * d
    low = (x64 if whole else torch.where(seen, x64, torch.inf)).amin(2)
    high = (x64 if whole else torch.where(seen, x64, -torch.inf)).amax(2)
    fields = (n, mean, d2.sum(2), (d2 * d).sum(2), (d2 * d2).sum(2), low, high)
    return Moments(*(_numpy(field) for field in fields)), _sums(x0, seen)


def _sums(x: Tensor, seen: Tensor) -> dict[str, Array]:
    """The sums of `stats.fields`, shape (C,), but for `positive`, which needs a gate: see `count`.

    `x` has zeros in the place of values that are not finite, which are those that were not `seen`.
    """
    added = {"nonfinite": ~seen}
    added |= {sum_.name: torch.where(seen, sum_.of(x), 0) for sum_ in SUMS if sum_.of is not None}
    return {name: _numpy(terms.sum((0, 2), dtype=torch.float64)) for name, terms in added.items()}


def count(x: Tensor, gate: Affine | None, bins: Affine | None, share: Share = WHOLE) -> Counts:
    """Positive values of gate(x), and the histogram of z = bins(x); each only where its map is given.

    The gate sees every value, the histogram those of the images of its `share`.
    """
    positive, histogram = np.zeros(x.shape[1]), np.zeros((x.shape[1], N_BINS))
    start = 0
    for part in _chunks(x) if gate or bins else ():
        x64, here = _float64(part), slice(start, start + part.shape[0])
        if gate is not None:
            positive += _numpy((gate[here].on(x64) > 0).sum((0, 2)).double())
        if bins is not None:
            counted = [share.counts(i) for i in range(here.start, here.stop)]
            histogram += _histogram(bins[here].on(x64)[counted])
        start = here.stop
    return Counts(positive if gate else None, histogram if bins else None)


def _histogram(z: Tensor) -> Array:
    """Counts per channel of z, shape (N, C, P), in the bins of `stats.histogram`; finite values only."""
    seen = torch.isfinite(z)
    u = (1.0 + z.abs()).clamp(max=2.0**N_OCTAVES - 0.5)
    # mantissa in [0.5, 1) and exponent are exact, so bins have exact edges
    mantissa, exponent = torch.frexp(torch.where(seen, u, 1.0))
    step = ((2 * mantissa - 1) * BINS_PER_OCTAVE).floor().long()
    side = (exponent.long() - 1) * BINS_PER_OCTAVE + step
    index = torch.where(z < 0, SIDE - 1 - side, SIDE + side)
    channel = torch.arange(z.shape[1], device=z.device)[None, :, None] * N_BINS
    counts = torch.bincount((index + channel)[seen], minlength=z.shape[1] * N_BINS)
    per_channel: Array = _numpy(counts.double()).reshape(z.shape[1], N_BINS)
    return per_channel


def tokens(x: Tensor, asked: PerSample) -> Tokens:
    """What a layer or RMS norm itself computes at each position.

    The mean over channels, and the log of what it divides by the root of: variance (divisor C; the mean square where not
    `centred`) + eps; NaN where a value is not finite. And the sums over positions of what it divides, and of its square.
    """
    means, logs = [], []
    sums = torch.zeros(
        (2, x.shape[1]), dtype=torch.float64, device="cpu" if x.device.type == "mps" else x.device
    )
    for part in _chunks(x):
        x64 = _float64(part)
        mean = x64.mean(1)
        d = x64 - mean[:, None] if asked.centred else x64
        square = (d * d).mean(1)
        z = d / torch.sqrt(square + asked.eps)[:, None]
        z = torch.where(torch.isfinite(square)[:, None], z, 0.0)
        sums += torch.stack([z.sum((0, 2)), (z * z).sum((0, 2))])
        means.append(mean)
        logs.append(torch.log(square + asked.eps))
    nothing = x.new_zeros((0, x.shape[2]), dtype=torch.float64)
    return Tokens(torch.cat(means) if means else nothing, torch.cat(logs) if logs else nothing, sums)


def positions(seen: Tokens) -> tuple[Moments, Moments]:
    """The distributions of the mean and of the log variance over all samples and positions, each of shape (1,)."""
    mean, log = (Moments.of(_numpy(part).reshape(-1, 1)) for part in (seen.mean, seen.log_square))
    return mean, log


def _float64(x: Tensor) -> Tensor:
    # Apple's GPUs have no float64
    return x.to("cpu", torch.float64) if x.device.type == "mps" else x.to(torch.float64)


def _numpy(x: Tensor) -> Any:
    return x.cpu().numpy()


def products(w: Tensor, g: Tensor) -> Array:
    """Of two tensors (C, K), per row: the length of w, the length of g, and the sum of w * g, shape (3, C)."""
    lengths = (torch.linalg.vector_norm(v, dim=1) for v in (w, g))
    return np.stack([float64_copy(v) for v in (*lengths, torch.linalg.vecdot(w, g))])
