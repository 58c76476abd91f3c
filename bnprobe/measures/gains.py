"""What the gains of a norm over channels say by themselves: how they are stored, and which channels they weaken."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column
from bnprobe.recording import CHANNELS, LayerRecord
from bnprobe.stats.moments import Array

BLOCK = 32
"""Values that share an exponent in microscaling formats."""

SATURATED = 1.75
"""Mantissa from which the largest values of a block lie beyond the last number of an 8-bit float."""

FEW = 8
"""Channels below which a correlation says nothing."""

COLUMNS = (
    Column(
        "gamma_is_one",
        "Share of the gains at exactly their initial 1.",
        "share of γ = 1",
        "0 to 1",
        table="layers",
    ),
    Column(
        "gamma_saturating",
        "Share of the gains that a microscaling format (blocks of 32) would clip.",
        "share of |γ| > 1.75 · 2^⌊log₂ max |γ| of the block⌋",
        "0 to 1",
        "Su et al. 2025, arXiv:2506.20752",
        "layers",
    ),
    Column(
        "gamma_vs_size",
        "Whether gains weaken large dimensions: correlation of log |γ| with the log size after dividing.",
        "correlation of log |γ| and log rms z",
        "−1 to 1",
        table="layers",
    ),
)


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """The three numbers; NaN for other norms, and for norms without γ."""
    gamma = record.gamma
    if gamma is None or record.pools != CHANNELS or not len(gamma):
        return {column.name: float("nan") for column in COLUMNS}
    return {
        "gamma_is_one": float(np.mean(gamma == 1)),
        "gamma_saturating": saturating(gamma),
        "gamma_vs_size": _vs_size(record),
    }


def saturating(gamma: Array) -> float:
    """Share of |γ| that is above 1.75 times the power of two at or below the largest of its block; NaN if not finite."""
    if not np.isfinite(gamma).all():
        return float("nan")
    padded = np.concatenate([np.abs(gamma), np.zeros(-len(gamma) % BLOCK)]).reshape(-1, BLOCK)
    largest = padded.max(axis=1, keepdims=True)
    exponent = np.frexp(largest)[1] - 1
    return float((padded > SATURATED * np.ldexp(1.0, exponent)).sum() / len(gamma))


def _vs_size(record: LayerRecord) -> float:
    tokens, gamma = record.tokens, record.gamma
    if tokens is None or gamma is None:
        return float("nan")
    known = (gamma != 0) & np.isfinite(gamma) & (tokens.z_square > 0)
    if known.sum() < FEW:
        return float("nan")
    log_gamma, log_size = np.log(np.abs(gamma[known])), np.log(tokens.z_square[known])
    if not (np.ptp(log_gamma) > 0 and np.ptp(log_size) > 0):
        return float("nan")
    return float(np.corrcoef(log_gamma, log_size)[0, 1])
