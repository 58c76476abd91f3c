"""What norms over channels do to tokens: scales by position, what is left after dividing, and the loudest tokens.

With x a token's C values, r = sqrt(mean x^2 + eps) (of x minus its mean for layer norm) and z = x / r.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from bnprobe.errors import BnprobeError
from bnprobe.stats.moments import Array

N_BUCKETS = 24
"""Buckets of positions: 0, 1, 2-3, 4-7, ..., from 2^22 on."""

N_LOUD = 8
"""The loudest tokens that are kept."""

BINS_PER_OCTAVE, LOWEST_OCTAVE, N_SCALES = 8, -32, 512
"""Bins of log2 r, from 2^-32 to 2^32; the outer ones are open."""

SCALES = 2.0 ** (LOWEST_OCTAVE + (np.arange(N_SCALES) + 0.5) / BINS_PER_OCTAVE)
"""The scale in the middle of each bin."""

ADDED = (
    *("n", "log_sum", "log_square", "scales", "z_sum", "z_square"),
    *("mean_share", "n_sequences", "pairs", "centred_pairs", "branch"),
)
"""Fields that merge by addition."""


@dataclass(frozen=True)
class TokenStats:
    """Sums over the tokens of one site. All float64; B = N_BUCKETS, C channels.

    `n`, `log_sum` and `log_square` (B,): number of tokens at positions of each bucket, sum of log r and of its square; zeros
    where positions are not known. `scales` (N_SCALES,) counts all tokens by log2 r. `z_sum` and `z_square` (C,) are sums
    over all tokens. `mean_share` (1,) is the sum of (mean x)^2 / mean x^2,
    `n_sequences` (1,) the number of sequences.

    Of a sample of tokens: `pairs` (2,) holds the number of pairs of tokens of different sequences and positions, and the sum
    of (z . z')^2; `centred_pairs` (2,) the same of pairs of differences of tokens. `branch` (4,) holds the number of tokens
    compared with the previous norm of the same stream, whose input was x0, and the sums of log(|x - x0| / |x0|), of its
    square, and of the cosine between x0 and x - x0.

    `loudest` (K, 6) are the K <= N_LOUD tokens of the largest r, in falling order: r, number of the sequence, position and
    id (-1 where not known), the channel that holds most of its energy, and its share of it.
    """

    n: Array
    log_sum: Array
    log_square: Array
    scales: Array
    z_sum: Array
    z_square: Array
    mean_share: Array
    n_sequences: Array
    pairs: Array
    centred_pairs: Array
    branch: Array
    loudest: Array

    def __post_init__(self) -> None:
        c = (self.z_sum.size,)
        wanted: dict[str, tuple[int, ...]] = {
            "n": (N_BUCKETS,),
            "log_sum": (N_BUCKETS,),
            "log_square": (N_BUCKETS,),
        }
        wanted |= {
            "scales": (N_SCALES,),
            "z_sum": c,
            "z_square": c,
            "mean_share": (1,),
            "n_sequences": (1,),
        }
        wanted |= {
            "pairs": (2,),
            "centred_pairs": (2,),
            "branch": (4,),
            "loudest": (min(len(self.loudest), N_LOUD), 6),
        }
        for name, shape in wanted.items():
            found = getattr(self, name).shape
            if found != shape:
                raise BnprobeError(f"tokens / {name}: expected shape {shape}, found {found}.")

    @classmethod
    def empty(cls, n_channels: int) -> Self:
        """No token seen yet: the identity of `merge`."""
        b, c = np.zeros(N_BUCKETS), np.zeros(n_channels)
        few = np.zeros(2)
        return cls(
            b,
            b,
            b,
            np.zeros(N_SCALES),
            c,
            c,
            np.zeros(1),
            np.zeros(1),
            few,
            few,
            np.zeros(4),
            np.zeros((0, 6)),
        )

    def merge(self, other: Self) -> Self:
        """Tokens of both; the sequences of the other part are numbered after those of this one."""
        added = {name: getattr(self, name) + getattr(other, name) for name in ADDED}
        later = other.loudest.copy()
        later[:, 1] += self.n_sequences[0]
        loudest = np.concatenate([self.loudest, later])
        order = np.lexsort((*loudest.T, -loudest[:, 0]))[:N_LOUD]
        return type(self)(**added, loudest=loudest[order])

    @property
    def n_tokens(self) -> float:
        """Tokens whose values are finite."""
        return float(self.scales.sum())

    def check_sane(self, where: str = "tokens") -> Self:
        """Raise unless these are sums of real tokens."""
        values = [getattr(self, field.name) for field in fields(self)]
        positive = (
            self.n,
            self.scales,
            self.z_square,
            self.pairs,
            self.centred_pairs,
            self.branch[:1],
            self.mean_share,
            self.n_sequences,
        )
        if not all(np.isfinite(value).all() for value in values) or any(
            (value < 0).any() for value in positive
        ):
            raise BnprobeError(f"{where}: no tokens have such sums.")
        if self.n.sum() > self.n_tokens or self.pairs[0] != np.floor(self.pairs[0]):
            raise BnprobeError(f"{where}: more tokens at known positions than tokens.")
        return self
