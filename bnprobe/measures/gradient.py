"""What backward passes did: the gradients of gamma and beta, and what the norm does to the gradient."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures.columns import Column, Columns, Paint, signed
from bnprobe.measures.gradient_signal import ALIKE, FEWEST_PASSES, of_channels, of_layer
from bnprobe.measures.shape import median
from bnprobe.recording import GradientRecord, LayerRecord
from bnprobe.stats import Moments
from bnprobe.stats.moments import Array, ratio

_SANTURKAR = "Santurkar et al. 2018, arXiv:1805.11604"
_MOLCHANOV = "Molchanov et al. 2019, arXiv:1906.10771"
_LAARHOVEN = "van Laarhoven 2017, arXiv:1706.05350"

_SNR = f"√max(0, (T − 3)/(T − 1) · mean² / variance − 1/T) over T passes, variance with divisor T − 1; T ≥ {FEWEST_PASSES}"

COLUMNS = (
    Column(
        "grad_gamma",
        "Mean over backward passes of the gradient of γ.",
        "mean of dL/dγ",
        "loss / γ",
        rank=3,
        paint=signed("gradients", "gradient of γ, mean over passes", None),
    ),
    Column(
        "grad_beta",
        "Mean over backward passes of the gradient of β.",
        "mean of dL/dβ",
        "loss / β",
        rank=3,
        paint=signed("gradients", "gradient of β, mean over passes", None),
    ),
    Column(
        "gamma_snr",
        "Signal-to-noise ratio of the gradient of γ between passes: 0 is noise alone. It grows with the root of the batch.",
        _SNR,
        rank=4,
        paint=Paint(
            "gradients", "signal-to-noise ratio of the gradient of γ", "viridis", "log", limits=(1e-2, 10)
        ),
    ),
    Column(
        "beta_snr",
        "Signal-to-noise ratio of the gradient of β, as gamma_snr.",
        _SNR,
        rank=7,
        paint=Paint(
            "gradients", "signal-to-noise ratio of the gradient of β", "viridis", "log", limits=(1e-2, 10)
        ),
    ),
    Column("dy_mean", "Mean of the gradient at the norm's output.", "mean of dL/dy", "loss / output"),
    Column(
        "dy_var",
        "Variance of the gradient at the norm's output (divisor n).",
        "variance of dL/dy",
        "(loss / output)²",
        rank=3,
        paint=Paint("gradients", "variance of the gradient at the output", "viridis", "log"),
    ),
    Column("dx_mean", "Mean of the gradient at the norm's input.", "mean of dL/dx", "loss / input"),
    Column(
        "dx_var",
        "Variance of the gradient at the norm's input (divisor n).",
        "variance of dL/dx",
        "(loss / input)²",
        rank=3,
        paint=Paint("gradients", "variance of the gradient at the input", "viridis", "log"),
    ),
    Column(
        "energy_removed",
        "Share of the gradient's energy that the norm removes because its mean and variance depend on the data.",
        "1 − Σ dx² / Σ (dy γ / √(var + eps))²",
        "0 to 1",
        _SANTURKAR + ", theorem 4.1",
        rank=6,
        paint=Paint("gradients", "share of the gradient's energy removed", "mako", "share"),
    ),
    Column(
        "importance",
        "First-order estimate of how much the loss of a pass changes when the channel is set to zero.",
        "mean of |γ dL/dγ + β dL/dβ|",
        "loss",
        _MOLCHANOV,
        rank=6,
        paint=Paint("gradients", "importance for the loss", "rocket", "log"),
    ),
    Column(
        "gamma_pull",
        "First-order change of the loss if γ were scaled up.",
        "γ · mean of dL/dγ",
        "loss",
        _MOLCHANOV,
    ),
    Column(
        "w_norm",
        "Length (L2 norm) of the channel's weights in the preceding layer.",
        "|w|",
        "weight",
        _LAARHOVEN,
    ),
    Column(
        "w_angle",
        "How much a step of learning rate 1 rotates the channel's weights in the preceding layer; multiply by the "
        "learning rate.",
        "|dL/dw ⟂ w| / |w|, mean over passes",
        "radians per unit of learning rate",
        _LAARHOVEN,
    ),
    Column(
        "dy_nonfinite",
        "Values of the gradient at the norm's output that were NaN or infinite; the other columns leave them out.",
        "count of dL/dy not finite",
        "values",
    ),
    Column(
        "dx_nonfinite",
        "Values of the gradient at the norm's input that were NaN or infinite.",
        "count of dL/dx not finite",
        "values",
    ),
    Column(
        "grad_gamma_nonfinite",
        "Backward passes in which the gradient of γ was NaN or infinite.",
        "count of dL/dγ not finite",
        "passes",
    ),
    Column(
        "grad_beta_nonfinite",
        "Backward passes in which the gradient of β was NaN or infinite.",
        "count of dL/dβ not finite",
        "passes",
    ),
    Column("n_backward", "Backward passes recorded.", table="layers"),
    Column(
        "n_backward_nonfinite",
        "Backward passes in which a gradient at this norm was NaN or infinite: of its output, input, γ or β.",
        "",
        "passes",
        table="layers",
    ),
    Column(
        "n_backward_arising",
        "Those of them in which the gradient at its output was finite: the others arise in this norm.",
        "",
        "passes",
        table="layers",
    ),
    Column(
        "n_backward_scaled",
        "Those of them under a loss scale, whose step the scaler skips; no other column holds them.",
        "",
        "passes",
        table="layers",
    ),
    Column(
        "grad_out",
        "Length of the gradient at the norm's output; NaN where a pass was not finite.",
        "√(Σ dy² / passes)",
        "loss / output",
        table="layers",
    ),
    Column(
        "grad_in",
        "Length of the gradient at the norm's input; NaN where a pass was not finite.",
        "√(Σ dx² / passes)",
        "loss / input",
        table="layers",
    ),
    Column(
        "grad_scale",
        "Length of the stream's gradient at this norm, each token times its scale; in healthy pre-norm networks flat over "
        "depth.",
        "√(Σ (r · dL/dx)² / passes); r = √(mean x² + eps) of the token, minus its mean for layer norm",
        "loss",
        "arXiv:2603.17771",
        "layers",
    ),
    Column(
        "grad_ratio",
        "Factor by which the norm changes the gradient's length in the backward pass.",
        "grad_in / grad_out",
        table="layers",
    ),
    Column(
        "dy_kurtosis",
        "Excess kurtosis of the gradient at the output, over all channels: 0 for a Gaussian.",
        "excess kurtosis of dL/dy",
        source="Bjorck et al. 2018, arXiv:1806.02375",
        table="layers",
    ),
    Column(
        "no_gradient",
        "Share of channels that no gradient reached.",
        "share of Σ dy² = 0",
        "0 to 1",
        table="layers",
    ),
    Column(
        "energy_removed_layer",
        "Share of the gradient's energy that the norm removes, over all channels of the layer.",
        "1 − Σ dx² / Σ (dy γ / √(var + eps))²",
        "0 to 1",
        _SANTURKAR,
        "layers",
    ),
    *(
        Column(name, meaning.format(letter), formula, table="layers")
        for letter, vector in (("γ", "gamma"), ("β", "beta"))
        for name, meaning, formula in (
            (
                f"{vector}_snr_pooled",
                "Signal-to-noise ratio of the gradients of {}, all channels together.",
                f"√max(0, mean of unbiased {vector}_snr²)",
            ),
            (
                f"{vector}_snr_upper",
                "The same, two standard errors up.",
                f"√({vector}_snr_pooled² + 2 errors), noncentral F; {ALIKE} channels count as one",
            ),
        )
    ),
    Column(
        "w_angle_median",
        "Typical w_angle.",
        "median",
        "radians per unit of learning rate",
        _LAARHOVEN,
        "layers",
    ),
)

_CHANNEL = tuple(column.name for column in COLUMNS if column.table == "channels")
_LAYER = tuple(column.name for column in COLUMNS if column.table == "layers")


def channel_columns(record: LayerRecord) -> dict[str, Array]:
    """The gradient per channel, shape (C,) each; NaN where autograd computed none."""
    missing = np.full(record.n_channels, np.nan)
    columns = dict.fromkeys(_CHANNEL, missing)
    gradient = record.gradient
    if gradient is None:
        return columns
    columns.update(dy_mean=gradient.dy.mean_seen, dy_var=gradient.dy.var_population)
    columns.update(_nonfinite(gradient))
    if gradient.dx is not None:
        columns.update(
            dx_mean=gradient.dx.mean_seen,
            dx_var=gradient.dx.var_population,
            energy_removed=1 - ratio(_energy(gradient.dx), gradient.energy),
        )
    if gradient.gamma is not None:
        columns.update(grad_gamma=gradient.gamma.mean_seen, gamma_snr=of_channels(gradient.gamma))
        if record.gamma is not None:
            columns.update(gamma_pull=record.gamma * gradient.gamma.mean_seen)
    if gradient.beta is not None:
        columns.update(grad_beta=gradient.beta.mean_seen, beta_snr=of_channels(gradient.beta))
    if gradient.importance is not None:
        columns.update(importance=gradient.importance.mean_seen)
    if gradient.producer is not None:
        columns.update(w_norm=gradient.producer.norm.mean_seen, w_angle=gradient.producer.angle.mean_seen)
    return columns


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, float]:
    """The gradient of the layer as a whole; NaN where autograd computed none."""
    columns = dict.fromkeys(_LAYER, float("nan"))
    gradient = record.gradient
    columns.update(_passes(gradient))
    if gradient is None or not gradient.n_passes:
        return columns
    columns.update(_signal(gradient))
    out = _energy(gradient.dy)
    if gradient.stream is not None:
        columns["grad_scale"] = float(np.sqrt(gradient.stream.mean.sum()))
    columns.update(
        grad_out=float(np.sqrt(out.sum() / gradient.n_passes)),
        dy_kurtosis=float(gradient.dy.pool().kurtosis_excess),
        no_gradient=float(np.mean(out[seen] == 0)) if (seen := gradient.dy.n > 0).any() else float("nan"),
        w_angle_median=median((channels or channel_columns(record))["w_angle"]),
    )
    if gradient.dx is not None:
        back = _energy(gradient.dx).sum()
        columns["grad_in"] = float(np.sqrt(back / gradient.n_passes_dx))
        columns["grad_ratio"] = float(ratio(columns["grad_in"], columns["grad_out"]))
        columns["energy_removed_layer"] = float(1 - ratio(back, gradient.energy.sum()))
    if columns["n_backward_nonfinite"] > columns["n_backward_scaled"]:
        # what is left of such passes would look like a sound gradient
        columns |= dict.fromkeys(
            ("grad_out", "grad_in", "grad_scale", "grad_ratio", "energy_removed_layer"), float("nan")
        )
    return columns


def _nonfinite(gradient: GradientRecord) -> dict[str, Array]:
    """How much of each gradient was not finite, shape (C,) each."""
    found, zeros = gradient.nonfinite, np.zeros(gradient.energy.shape)
    return {
        "dy_nonfinite": gradient.dy_nonfinite,
        "dx_nonfinite": zeros if found is None else found.dx_values,
        "grad_gamma_nonfinite": zeros if found is None else found.gamma_passes,
        "grad_beta_nonfinite": zeros if found is None else found.beta_passes,
    }


def _passes(gradient: GradientRecord | None) -> dict[str, float]:
    """How many backward passes there were, and in how many of them a gradient was not finite."""
    found = None if gradient is None else gradient.nonfinite
    bad, arising, scaled = (0, 0, 0) if found is None else (found.n_passes, found.n_arising, found.n_scaled)
    return {
        "n_backward": scaled + (0 if gradient is None else gradient.n_passes),
        "n_backward_nonfinite": bad,
        "n_backward_arising": arising,
        "n_backward_scaled": scaled,
    }


def imbalance(layers: pd.DataFrame) -> float:
    """One number for the whole network: standard deviation (divisor n) over depth of log10(grad_out).

    0 when the gradient is equally long at every norm, 0.3 when it typically differs by a factor of 2;
    NaN with fewer than two norms that a gradient reached.
    """
    lengths = layers["grad_out"].dropna()
    lengths = lengths[lengths > 0]
    return float(np.std(np.log10(lengths))) if len(lengths) > 1 else float("nan")


def _energy(moments: Moments) -> Array:
    """Sum of squares."""
    return moments.m2 + moments.n * moments.mean**2


def _signal(gradient: GradientRecord) -> dict[str, float]:
    """The signal-to-noise ratios of the layer, as far as there are gradients."""
    columns = {}
    for vector in ("gamma", "beta"):
        moments = getattr(gradient, vector)
        if moments is not None:
            columns[f"{vector}_snr_pooled"], columns[f"{vector}_snr_upper"] = of_layer(moments)
    return columns
