"""What the layer learned and stored: gamma, beta, running mean and variance."""

from __future__ import annotations

import numpy as np

from bnprobe.measures.columns import Column, Paint, signed
from bnprobe.recording import LayerRecord
from bnprobe.stats.moments import Array

IOFFE = "Ioffe & Szegedy 2015, arXiv:1502.03167"

COLUMNS = (
    Column(
        "gamma",
        "Learned scale: the standard deviation that the outputs are meant to have.",
        "γ",
        source=IOFFE,
        rank=1,
        paint=signed("learned", "γ", 2),
    ),
    Column(
        "beta",
        "Learned offset: the mean that the outputs are meant to have.",
        "β",
        source=IOFFE,
        rank=1,
        paint=signed("learned", "β", 2),
    ),
    Column(
        "running_mean",
        "Running mean from training, as it was before this run.",
        "μ",
        "input",
        IOFFE,
        rank=1,
        paint=signed("match with training", "running mean", None),
    ),
    Column(
        "running_var",
        "Running variance from training, as it was before this run (an average of the unbiased variances of batches).",
        "σ²",
        "input²",
        IOFFE,
        rank=1,
        paint=Paint("match with training", "running variance", "viridis", "log", limits=(1e-4, 1e2)),
    ),
    Column(
        "gamma_abs_median",
        "Half of the channels have a |γ| below this.",
        "median |γ|",
        table="layers",
    ),
    Column(
        "gamma_negative",
        "Share of channels with negative γ.",
        "share of γ < 0",
        table="layers",
    ),
    Column(
        "beta_negative",
        "Share of channels with negative β.",
        "share of β < 0",
        table="layers",
    ),
)


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The four vectors; NaN where the layer does not have them."""
    missing = np.full(record.n_channels, np.nan)
    names = ("gamma", "beta", "running_mean", "running_var")
    return {name: missing if (v := getattr(record, name)) is None else v for name in names}


def layer_columns(record: LayerRecord) -> dict[str, float]:
    """Medians and shares of the learned vectors; NaN for layers without them."""
    gamma, beta = record.gamma, record.beta
    return {
        "gamma_abs_median": float("nan") if gamma is None else float(np.median(np.abs(gamma))),
        "gamma_negative": float("nan") if gamma is None else float(np.mean(gamma < 0)),
        "beta_negative": float("nan") if beta is None else float(np.mean(beta < 0)),
    }
