"""What one call of a norm over channels, and all calls of a site, add to the sums over tokens.

On whatever device the norm runs: nothing here waits for it, so that a GPU is asked for numbers only when a recording
is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from bnprobe.norms import NormLayer
from bnprobe.probe.places import Placed
from bnprobe.reductions import Tokens
from bnprobe.stats.tokens import (
    BINS_PER_OCTAVE,
    LOWEST_OCTAVE,
    N_BUCKETS,
    N_LOUD,
    N_SCALES,
    TokenStats,
)

MOST_SAMPLED = 64
"""Tokens of a call that are looked at in pairs, and beside the previous norm."""

LARGEST_SAMPLE = 1 << 16
"""Values of these tokens, whatever the width of the model."""

GOLDEN = 0.6180339887498949
"""Multiples of it, less their whole part, are spread evenly: tokens are taken at places that follow no period."""

SMALLEST_BRANCH = 1e-12
"""The relative change of a stream that counts as none."""

APART = 4
"""Sequences in a call from which four tokens are taken from four sequences."""


@dataclass(slots=True)
class TokenReading:
    """One call, of an input with the dimensions `places` beside its channels: what the norm computed at each position, and
    a sample of tokens as they enter it.

    `x` (K, C) are the sampled tokens, `mean` and `by` (K,) what is subtracted and multiplied, `sequence` and `position`
    (K,) their places in the rows. `loud` (L, 4) are the loudest tokens: log r, place among all, the largest channel and its
    share of the energy.
    """

    plan: NormLayer
    places: tuple[int, ...]
    seen: Tokens
    x: Tensor
    mean: Tensor
    by: Tensor
    sequence: Tensor
    position: Tensor
    loud: Tensor

    @property
    def z(self) -> Tensor:
        """The sampled tokens after dividing."""
        return (self.x - self.mean[:, None]) * self.by[:, None]


def read_tokens(plan: NormLayer, places: tuple[int, ...], rows: Tensor, seen: Tokens) -> TokenReading | None:
    """The call of a norm whose input has these rows (N, C, P), of which it computed what was `seen`; None without rows.

    Sampled tokens that do not count, or have values that are not finite, are NaN.
    """
    n, c, p = rows.shape
    if not rows.numel():
        return None
    k = max(min(MOST_SAMPLED, LARGEST_SAMPLE // max(c, 1), n * p), 1)
    step = np.arange(k)
    chosen = np.unique(((step + step * GOLDEN % 1) * (n * p) // k).astype(np.int64))
    sequence, position = (torch.from_numpy(part).to(rows.device) for part in np.divmod(chosen, p))
    mean, log_square = seen.mean[sequence, position], seen.log_square[sequence, position]
    x = torch.where(
        torch.isfinite(log_square)[:, None], rows[sequence, :, position].to(torch.float64), torch.nan
    )
    mean = mean if plan.centred else torch.zeros_like(mean)
    loud = loudest(rows, seen, plan.centred)
    return TokenReading(plan, places, seen, x, mean, torch.exp(-log_square / 2), sequence, position, loud)


def loudest(rows: Tensor, seen: Tokens, centred: bool) -> Tensor:
    """The loudest tokens of rows (N, C, P), as in `TokenReading.loud`; -inf for those that do not count."""
    p = rows.shape[2]
    log_r = torch.where(torch.isfinite(seen.log_square), seen.log_square / 2, -torch.inf).reshape(-1)
    values, at = log_r.topk(min(N_LOUD, len(log_r)))
    x = rows[at // p, :, at % p].to(torch.float64)
    energy = (x - seen.mean.reshape(-1)[at][:, None] if centred else x) ** 2
    most, channel = energy.max(dim=1)
    return torch.stack([values, at.double(), channel.double(), most / energy.sum(dim=1)], dim=1)


class TokenTotals:
    """The sums over tokens of one site, where its inputs are."""

    def __init__(self, n_channels: int, device: torch.device) -> None:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self._buckets = zeros((3, N_BUCKETS + 1))  # the last for positions that are not known
        self._scales, self._z, self._few = zeros(N_SCALES), zeros((2, n_channels)), zeros(9)
        self._loudest = zeros((0, 6))
        self._n_sequences = 0

    def add(self, call: TokenReading, placed: Placed, before: TokenReading | None) -> None:
        """Add a call; `before` is that of the previous norm of the same stream in this pass, if there is one."""
        log_r = call.seen.log_square.reshape(-1) / 2
        counted = torch.isfinite(log_r)
        weight, log_r = counted.to(torch.float64), torch.where(counted, log_r, 0.0)
        bins = ((log_r / math.log(2) - LOWEST_OCTAVE) * BINS_PER_OCTAVE).floor().clamp(0, N_SCALES - 1)
        self._scales.index_add_(0, bins.long(), weight)
        self._buckets.index_add_(
            1, placed.bucket, torch.stack([weight, log_r * weight, log_r * log_r * weight])
        )
        self._z += call.seen.sums
        self._few[0] += self._mean_shares(call, counted)
        if not placed.continues:
            self._n_sequences += placed.n_sequences
        self._add_loudest(call.loud, placed)
        self._add_pairs(call, placed)
        # a norm of the class token alone has other tokens than the stream before it
        if before is not None and _same_tokens(before.places, call.places):
            self._few[5:] += branch(before.x, call.x)

    def _mean_shares(self, call: TokenReading, counted: Tensor) -> Tensor:
        """The sum of each token's share of energy in its mean."""
        mean = torch.where(counted, call.seen.mean.reshape(-1), 0.0) ** 2
        square = (torch.exp(call.seen.log_square.reshape(-1)) - call.plan.eps).clamp(min=0.0)
        energy = torch.where(counted, square + mean if call.plan.centred else square, 0.0)
        return torch.where(energy > 0, mean / energy, 0.0).sum()

    def _add_loudest(self, loud: Tensor, placed: Placed) -> None:
        new = torch.cat([loud[:, :1], placed.names[loud[:, 1].long()], loud[:, 2:]], dim=1)
        new[:, 1] += max(self._n_sequences - placed.since, 0)
        both = torch.cat([self._loudest, new])
        self._loudest = both[both[:, 0].topk(min(N_LOUD, len(both))).indices]

    def _add_pairs(self, call: TokenReading, placed: Placed) -> None:
        """Pairs of tokens, and of differences of tokens, of different sequences and positions."""
        z = call.z
        whole = torch.isfinite(z).all(dim=1)
        z = torch.where(whole[:, None], z, 0.0)
        sequence, position = call.sequence, call.position
        if placed.in_a_row:
            sequence, position = placed.names[sequence * call.seen.mean.shape[1] + position, :2].T
        apart = (_differ(position) & whole[:, None] & whole).triu()
        self._few[1:3] += _squares(z @ z.T, apart & _differ(sequence))
        h = len(z) // 2
        u = z[:h] - z[h : 2 * h]
        apart = apart[:h, :h] & apart[h : 2 * h, h : 2 * h] & (whole[:h] & whole[h : 2 * h])
        if placed.n_sequences >= APART:
            apart = apart & _differ(sequence[:h]) & _differ(sequence[h : 2 * h])
        self._few[3:5] += _squares(u @ u.T, apart)

    def finished(self) -> TokenStats:
        """A snapshot, on the host."""
        parts = (self._buckets[:, :N_BUCKETS], self._scales, self._z, self._few, self._loudest)
        buckets, scales, z, few, loudest = (part.cpu().numpy().copy() for part in parts)
        loudest = loudest[np.isfinite(loudest[:, 0])]
        loudest[:, 0] = np.exp(loudest[:, 0])
        n_sequences = np.array([float(self._n_sequences)])
        n, log_sum, log_square = buckets
        z_sum, z_square = z
        sums = (n, log_sum, log_square, scales, z_sum, z_square, few[:1], n_sequences)
        return TokenStats(*sums, few[1:3], few[3:5], few[5:], loudest)


def branch(before: Tensor, now: Tensor) -> Tensor:
    """Of the same tokens earlier and later in a stream, (K, C): what `TokenStats.branch` holds."""
    change = now - before
    size, step = torch.linalg.vector_norm(before, dim=1), torch.linalg.vector_norm(change, dim=1)
    known = torch.isfinite(step) & (size > 0)
    log = torch.log((step / size).clamp(min=SMALLEST_BRANCH))
    cosine = torch.linalg.vecdot(before, change) / (size * step).clamp(min=torch.finfo(torch.float64).tiny)
    sums = [torch.where(known, one, 0.0).sum() for one in (torch.ones_like(log), log, log * log, cosine)]
    return torch.stack(sums)


def _same_tokens(before: tuple[int, ...], now: tuple[int, ...]) -> bool:
    """Whether two inputs have the same tokens in one order: (N, T) and N * T in a row are."""
    return before == now or (min(len(before), len(now)) == 1 and math.prod(before) == math.prod(now))


def _differ(numbers: Tensor) -> Tensor:
    return numbers[:, None] != numbers


def _squares(products: Tensor, which: Tensor) -> Tensor:
    """How many of the products count, and the sum of their squares."""
    return torch.stack([which.sum().to(torch.float64), torch.where(which, products * products, 0.0).sum()])
