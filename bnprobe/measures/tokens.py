"""What norms over channels do to tokens: scales by position, loud tokens, what is left after dividing, branches.

With x a token's values, r = √(mean x² + eps) (of x minus its mean for layer norm) and z = x / r: the token as the norm
hands it to γ. Columns of other norms are NaN.
"""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Columns
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array, ratio
from bnprobe.stats.tokens import N_BUCKETS, SCALES, TokenStats

LOUD = 5.0
"""A token is loud whose scale is so many times the median one."""

FEW_BUCKETS = 2
"""Buckets of positions below which nothing can be said of positions."""

_SUN = "Sun et al. 2024, arXiv:2402.17762"
_READ = "|γ|·‖W‖·rms z of the channel, squared, over the sum of squares; W: its column in the weights that take the output"
COLUMNS = (
    Column(
        "bare_head",
        "Whether the head of the model reads a sum that no norm follows: 1 for yes, in the last norm on its way.",
        unit="0 or 1",
        table="layers",
    ),
    Column(
        "z_share",
        "Share of the channel in the energy of tokens after dividing each by its own scale; chance is 1/C.",
        "Σ z² of the channel / Σ z²",
        "0 to 1",
        "Dettmers et al. 2022, arXiv:2208.07339",
    ),
    Column(
        "read_share",
        "Share of the channel in what the next layer reads from this norm.",
        _READ,
        "0 to 1",
        "arXiv:2605.26895",
    ),
    Column("n_tokens", "Tokens recorded: rows that were normalized one by one.", table="layers"),
    Column("token_scale", "Scale that half of the tokens stay below.", "median r", "input", _SUN, "layers"),
    Column(
        "token_scale_low",
        "Scale that 5% of the tokens stay below.",
        "5% quantile of r",
        "input",
        table="layers",
    ),
    Column(
        "token_scale_high",
        "Scale that 95% of the tokens stay below.",
        "95% quantile of r",
        "input",
        table="layers",
    ),
    Column(
        "loudest_token",
        "Scale of the loudest token, in median scales.",
        "max r / median r",
        "",
        _SUN,
        "layers",
    ),
    Column("loudest_position", "Position of the loudest token; −1 where it is not known.", table="layers"),
    Column("loudest_channel", "Channel that holds most of the energy of the loudest token.", table="layers"),
    Column(
        "loudest_channel_share",
        "Share of that channel in the energy of the loudest token.",
        "max x² / Σ x²",
        "0 to 1",
        _SUN,
        "layers",
    ),
    Column(
        "loud_share",
        f"Share of tokens whose scale is over {LOUD:g} median scales.",
        f"share of r > {LOUD:g} median r",
        "0 to 1",
        _SUN,
        "layers",
    ),
    Column(
        "first_token_scale",
        "Typical scale of the tokens at position 0, in median scales.",
        "exp(mean log r at position 0) / median r",
        "",
        _SUN,
        "layers",
    ),
    Column(
        "position_share",
        "Share of the variance of log scales that lies between positions (0, 1, 2–3, 4–7, ...); the rest is of the content.",
        "variance of log r between groups of positions / variance of log r",
        "0 to 1",
        _SUN,
        "layers",
    ),
    Column(
        "z_largest",
        "Share of the largest channel in the energy of tokens after dividing each by its own scale.",
        "max z_share",
        "0 to 1",
        "Kovaleva et al. 2021, arXiv:2105.06990",
        "layers",
    ),
    Column(
        "mean_excess",
        "Energy of a token in its mean, relative to chance; 1 for values without a common mean.",
        "C · mean over tokens of (mean x)² / mean x²",
        "",
        "Gupta, Ozdemir & Anumanchipalli 2024, arXiv:2409.12951",
        "layers",
    ),
    Column(
        "common",
        "Mean cosine between tokens: 1 where all point the same way.",
        "‖mean z‖² / C",
        "−1 to 1",
        "Noci et al. 2022, arXiv:2206.03126",
        "layers",
    ),
    Column(
        "dims",
        "Dimensions that the tokens use together, of C, from sampled pairs of different sequences and positions.",
        "C² / mean of (z · z′)²",
        "dimensions",
        table="layers",
    ),
    Column(
        "dims_centred",
        "Share of the dimensions that tokens use around their common direction.",
        "(C − C · common)² / (mean of ((z₁ − z₂) · (z₃ − z₄))² / 4) / C",
        "0 to 1",
        table="layers",
    ),
    Column(
        "branch",
        "How far the stream moved since the previous norm on it, relative to its size there (geometric mean over tokens).",
        "exp(mean log(‖x − x₀‖ / ‖x₀‖))",
        "",
        "Kim et al. 2025, arXiv:2502.02732",
        "layers",
    ),
    Column(
        "branch_cosine",
        "Cosine between the stream and what was added to it.",
        "mean of cos(x₀, x − x₀)",
        "−1 to 1",
        table="layers",
    ),
    Column(
        "token_eps_share",
        "Share of eps in what a typical token is divided by.",
        "eps / (median r)²",
        "0 to 1",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """Shares of energy, shape (C,); NaN where no token was seen."""
    nothing = np.full(record.n_channels, np.nan)
    if record.tokens is None or not record.tokens.n_tokens:
        return {"z_share": nothing, "read_share": nothing}
    energy = record.tokens.z_square
    return {"z_share": _shares(energy), "read_share": _read(record, energy)}


def _read(record: LayerRecord, energy: Array) -> Array:
    weights = None if record.neighbours is None else record.neighbours.reads
    if weights is None:
        return np.full(record.n_channels, np.nan)
    gamma = np.ones(record.n_channels) if record.gamma is None else record.gamma
    with np.errstate(over="ignore", invalid="ignore"):
        return _shares(gamma**2 * weights**2 * energy)


def _shares(energy: Array) -> Array:
    return ratio(energy, energy.sum())


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """The layer's numbers; NaN without tokens."""
    columns = {column.name: float("nan") for column in COLUMNS if column.table == "layers"}
    columns["bare_head"] = float(record.neighbours is not None and record.neighbours.bare_head)
    tokens = record.tokens
    if tokens is None or not tokens.n_tokens:
        return columns
    z_share = (channels or channel_columns(record))["z_share"]
    c, n = record.n_channels, tokens.n_tokens
    median = quantile(tokens, 0.5)
    common = float(((tokens.z_sum / n) ** 2).sum()) / c
    return columns | {
        "n_tokens": n,
        "token_scale": median,
        "token_scale_low": quantile(tokens, 0.05),
        "token_scale_high": quantile(tokens, 0.95),
        "loudest_token": float(tokens.loudest[0, 0]) / median,
        "loudest_position": float(tokens.loudest[0, 2]),
        "loudest_channel": float(tokens.loudest[0, 4]),
        "loudest_channel_share": float(tokens.loudest[0, 5]),
        "loud_share": float(tokens.scales[LOUD * median < SCALES].sum()) / n,
        "first_token_scale": _first(tokens) / median,
        "position_share": position_share(tokens),
        "z_largest": float(np.max(z_share)),
        "mean_excess": c * float(tokens.mean_share[0]) / n,
        "common": common,
        "dims": float(ratio(c**2 * tokens.pairs[0], tokens.pairs[1])),
        "dims_centred": float(
            ratio(c * (1 - common) ** 2 * 4 * tokens.centred_pairs[0], tokens.centred_pairs[1])
        ),
        "branch": float(np.exp(ratio(tokens.branch[1], tokens.branch[0]))),
        "branch_cosine": float(ratio(tokens.branch[3], tokens.branch[0])),
        "token_eps_share": record.eps / median**2,
    }


def quantile(tokens: TokenStats, share: float) -> float:
    """The scale that this share of tokens stays below, to an eighth of an octave."""
    return float(SCALES[np.searchsorted(np.cumsum(tokens.scales), share * tokens.n_tokens)])


def scale_by_position(tokens: TokenStats) -> Array:
    """The typical scale at positions 0, 1, 2-3, 4-7, ..., shape (N_BUCKETS,); NaN where no token was."""
    return np.exp(ratio(tokens.log_sum, tokens.n))


def position_share(tokens: TokenStats) -> float:
    """Share of the variance of log r that lies between positions; NaN where fewer than two groups were seen."""
    seen = tokens.n > 0
    n, total = tokens.n[seen], tokens.log_sum[seen]
    if seen.sum() < FEW_BUCKETS:
        return float("nan")
    mean = total.sum() / n.sum()
    variance = tokens.log_square.sum() - n.sum() * mean**2
    return float(ratio((n * (total / n - mean) ** 2).sum(), variance))


def first_position(bucket: int) -> int:
    """The first position of a bucket: 0, 1, 2, 4, 8, ..."""
    return 0 if bucket == 0 else 2 ** (min(bucket, N_BUCKETS) - 1)


def _first(tokens: TokenStats) -> float:
    return float(scale_by_position(tokens)[0])
