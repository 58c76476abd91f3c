"""The role of a channel, by the operation that really follows the norm.

An activation passes on what is above `low`, is the identity from `identity` on, and gives one and the same
value above `high`. A role is claimed where that is known and the activation acts on the norm's own
values; of a channel that enters a sum first, or goes several ways, only that it is constant can be said.

role        meaning                                                                             source
dead        never above `low` on these data, or cannot be: beta + 6 |gamma|, where eps is not     Mehta et al. 2019,
            what the norm divides by, ends below `low` + 0.0001 (6 standard deviations)          arXiv:1811.12495
constant    not dead, and |gamma| < 0.01: the output is beta                                     Frankle et al. 2020,
                                                                                                arXiv:2003.00152
saturated   more than half of the values lie above `high`                                        ours
linear      always on: the activation changes at most one value in 1,000, or none follows        ours
rare        rarely on: less than 5% of the values are above `low`                               ours
mixed       active: anything else; also where what follows has no corners (SiLU, GELU)           -
unknown     what follows was not seen, is none of this, or differs between ways                  -

Shares are counted where they are counts (`low` = 0: the positive outputs). Elsewhere they come from the
histogram, evenly spread inside a bin, and without one from the extremes where those settle it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bnprobe.measures.columns import Column, Columns, Paint
from bnprobe.recording import CHANNELS, LayerRecord
from bnprobe.recording.neighbours import Neighbours
from bnprobe.recording.terms import DEAD_REACH, DEAD_SIGMAS, LITTLE_OF_EPS, NEAR_ZERO
from bnprobe.stats.gaussian import probability_above, probability_above_skewed
from bnprobe.stats.histogram import Z_EDGES
from bnprobe.stats.moments import Array, ratio

RARE = 0.05
LINEAR = 1e-3
SATURATED = 0.5

ROLES = ("dead", "constant", "rare", "mixed", "linear", "saturated", "unknown")

_MEHTA = "Mehta, Kim & Theobalt 2019, arXiv:1811.12495"
_FRANKLE = "Frankle, Schwab & Morcos 2020, arXiv:2003.00152"


@dataclass(frozen=True)
class Corners:
    """Where an activation changes its nature; see the module."""

    low: float
    identity: float
    high: float = float("inf")


CORNERS = {
    "relu": Corners(0.0, 0.0),
    "relu6": Corners(0.0, 0.0, 6.0),
    "hardtanh": Corners(-1.0, -1.0, 1.0),
    "hardsigmoid": Corners(-3.0, -3.0, 3.0),
    "hardswish": Corners(-3.0, 3.0),
}

SMOOTH = frozenset(
    ["silu", "gelu", "mish", "elu", "selu", "celu", "softplus", "leaky_relu", "prelu", "sigmoid", "tanh"]
)
UNCHANGED = frozenset(
    ["linear", "conv", "attention", "matmul", "none", "norm", "avg_pool", "upsample", "scale", "add"]
)
"""What takes an output as it is; weights, sums and averages clip nothing."""

COLUMNS = (
    Column(
        "role",
        "Role of the channel for what follows: dead, constant, rare (rarely on), mixed (active), linear (always on), "
        "saturated or unknown.",
        "see measures/roles.py",
        source=f"{_MEHTA}; {_FRANKLE}",
     rank=1, paint=Paint("activity", "role", "roles", "names"),),
    Column(
        "fires_predicted",
        "Share of positive outputs if they are Gaussian, from γ and β alone.",
        "Φ(β / |γ|)",
        "0 to 1",
        "Nagel et al. 2019, arXiv:1906.04721",
     rank=5, paint=Paint("activity", "share of positive outputs predicted from γ and β", "mako", "share"),),
    Column(
        "fires_gaussian",
        "Share of positive outputs if they are Gaussian with the measured mean and standard deviation.",
        "Φ(post_mean / √post_var)",
        "0 to 1",
    ),
    Column(
        "fires_skewed",
        "Share of positive outputs if they have the measured mean, standard deviation and skewness.",
        "Φ(z) + post_skew/6 · (z² − 1) φ(z) in 0 to 1, z = post_mean / √post_var",
        "0 to 1",
        "Edgeworth 1905, first term",
    ),
    Column(
        "dead_predicted",
        "Whether the stored vectors alone say that the activation is never on for the channel: 1 for yes.",
        "β + 6 gamma_effective < low + 0.0001",
        "0 or 1",
        _MEHTA,
    ),
    Column(
        "gamma_effective",
        "Size of γ as it reaches the output: less where eps is what the norm divides by.",
        "|γ| √(σ² / (σ² + eps)) where σ² < eps / 100, else |γ|",
        "output",
    ),
    Column(
        "passes",
        "Share of outputs for which the activation is on; NaN where none with a corner follows.",
        "share of y > low",
        "0 to 1",
    ),
    Column(
        "saturates",
        "Share of outputs beyond the upper corner of the activation; NaN where it has none.",
        "share of y ≥ high",
        "0 to 1",
    ),
    Column("follows", "Operation that uses the output.", table="layers"),
    Column(
        "feeder",
        "Layer whose weights produce the input; “by name” where it was inferred from names and shapes.",
        table="layers",
    ),
    Column(
        "features_elsewhere",
        "Neighbors with features in another dimension than the norm has its channels, of norms over sequences or widths.",
        table="layers",
    ),
    Column(
        "constant_inputs",
        "Channels of the model's input, from 0, that held one value in the first pass, and that value; not of tables.",
        table="layers",
    ),
    Column("n_last", "Size of the last dimension of the output; 0 where it was not seen.", table="layers"),
    Column(
        "feeds_alone",
        "Whether that layer has a bias, its output goes only into this norm, unchanged, and nothing else does: 1 for yes.",
        unit="0 or 1",
        table="layers",
    ),
    *(
        Column(f"n_{role}", f"Channels with the role “{role}”.", f"count of role = {role}", "channels", table="layers")
        for role in ROLES
    ),
    Column(
        "fires_error",
        "Difference of predicted and measured share of positive outputs, on average over channels.",
        "mean |fires_predicted − fires|",
        "0 to 1",
        table="layers",
    ),
    Column(
        "dead_precision",
        "Share of the channels predicted dead that were never on for these data.",
        "dead and predicted / predicted",
        "0 to 1",
        _MEHTA,
        "layers",
    ),
    Column(
        "dead_recall",
        "Share of the channels that were never on for these data that was predicted dead.",
        "dead and predicted / dead",
        "0 to 1",
        _MEHTA,
        "layers",
    ),
)  # fmt: skip


def channel_columns(record: LayerRecord) -> dict[str, Any]:
    """Role and shares, shape (C,) each; NaN where they do not apply."""
    gamma, beta = _vectors(record)
    passes, saturates = _shares(record)
    moments = record.post.mean_seen, np.sqrt(record.post.var_population)
    return {
        "role": _roles(record),
        "fires_predicted": probability_above(beta, gamma),
        "fires_gaussian": probability_above(*moments),
        "fires_skewed": probability_above_skewed(*moments, record.post.skewness),
        "dead_predicted": dead_predicted(record),
        "gamma_effective": effective_gamma(record),
        "passes": passes,
        "saturates": saturates,
    }


def layer_columns(record: LayerRecord, channels: Columns | None = None) -> dict[str, Any]:
    """What follows, how many channels have which role, and how well γ and β alone predict them."""
    channels = channels or channel_columns(record)
    roles, predicted, dead = (channels[name] for name in ("role", "dead_predicted", "passes"))
    fires = _share(record.n_positive, record)
    error = np.abs(channels["fires_predicted"] - fires)
    both = np.sum((predicted == 1) & (dead == 0))
    return {
        "follows": "unknown" if record.neighbours is None else record.neighbours.follows,
        "feeder": _producer(record.neighbours),
        "features_elsewhere": "" if record.neighbours is None else record.neighbours.features_elsewhere,
        "constant_inputs": _constant_inputs(record.neighbours),
        "n_last": 0 if record.neighbours is None else record.neighbours.n_last,
        "feeds_alone": int(record.neighbours is not None and record.neighbours.feeds_alone),
        **{f"n_{role}": int(np.sum(roles == role)) for role in ROLES},
        "fires_error": float(np.nanmean(error)) if not np.isnan(error).all() else float("nan"),
        "dead_precision": float(ratio(both, np.sum((predicted == 1) & ~np.isnan(dead)))),
        "dead_recall": float(ratio(both, np.sum(dead == 0))),
    }


def _constant_inputs(neighbours: Neighbours | None) -> str:
    """Empty as well where all channels hold one value: a pass of zeros, of which another rule speaks."""
    values = neighbours.stem.constant if neighbours is not None and neighbours.stem is not None else None
    if values is None or np.isfinite(values).all():
        return ""
    return ", ".join(f"{c} ({values[c]:z.3g})" for c in np.flatnonzero(np.isfinite(values)))


def _producer(neighbours: Neighbours | None) -> str:
    if neighbours is None or not neighbours.producer:
        return ""
    return neighbours.producer + (" (by name)" if neighbours.guessed else "")


def corners(record: LayerRecord) -> Corners | None:
    """Of the activation that acts on the norm's own values; None where there is none with corners."""
    name, _, numbers = acting(record).removesuffix(")").partition("(")
    if name == "hardtanh" and numbers:
        low, high = map(float, numbers.split(","))
        return Corners(low, low, high)
    return CORNERS.get(name)


def dead_predicted(record: LayerRecord) -> Array:
    """1 where beta + 6 |gamma|, the effective one, stays below the lower corner, else 0; NaN without a corner. Shape
    (C,)."""
    known = corners(record)
    if known is None:
        return np.full(record.n_channels, np.nan)
    _, beta = _vectors(record)
    with np.errstate(invalid="ignore"):  # both may be infinite
        return (beta + DEAD_SIGMAS * effective_gamma(record) < known.low + DEAD_REACH).astype(np.float64)


def effective_gamma(record: LayerRecord) -> Array:
    """|γ| as it reaches the output: less where eps, and not the running variance, is what the norm divides by; shape (C,).

    Only where the variance is so small that data as in training cannot exceed it: a larger one may be out of date.
    """
    gamma, _ = _vectors(record)
    if record.running_var is None:
        return np.abs(gamma)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.sqrt(record.running_var / (record.running_var + record.eps))
        flat = (record.running_var >= 0) & (record.running_var < LITTLE_OF_EPS * record.eps)
        flat &= record.running_var.max() > 0  # a buffer of zeros was set so
    return np.abs(gamma) * np.where(flat, share, 1.0)


def acting(record: LayerRecord) -> str:
    """What acts on the norm's own values, one after the other in a concatenation; "" where it is not known.

    A module that does more than normalize (an activation inside) leaves nothing to say.
    """
    if record.neighbours is None or not (record.mismatch <= MISMATCH or np.isnan(record.mismatch)):
        return ""
    ways = {way.removeprefix("cat, ") for way in record.neighbours.follows.split(" | ")}
    # features that are also handed out are still clipped for what follows
    return ways.pop() if len(ways) == 1 else ""


MISMATCH = 0.05
"""Above it the output is not what the formula of the norm says, and the norm's values were never seen."""


def _vectors(record: LayerRecord) -> tuple[Array, Array]:
    """gamma and beta; 1 and 0 where the layer has none."""
    gamma = np.ones(record.n_channels) if record.gamma is None else record.gamma
    beta = np.zeros(record.n_channels) if record.beta is None else record.beta
    return gamma, beta


def _share(count: Array, record: LayerRecord) -> Array:
    """Of the finite outputs; NaN where there was none."""
    return ratio(count, record.post.n)


def _shares(record: LayerRecord) -> tuple[Array, Array]:
    """Shares above the lower and beyond the upper corner of what follows; NaN where there is no corner."""
    known = corners(record)
    missing = np.full(record.n_channels, np.nan)
    if known is None:
        return missing, missing
    passes = _share(record.n_positive, record) if known.low == 0 else share_above(record, known.low)
    return passes, share_above(record, known.high) if np.isfinite(known.high) else missing


def share_above(record: LayerRecord, threshold: float) -> Array:
    """Share of outputs above a value: by the extremes where they settle it, else by the histogram. Shape (C,)."""
    share = np.full(record.n_channels, np.nan)
    histogram = record.post_histogram
    if histogram is not None:
        z = (threshold - histogram.centre) / histogram.scale
        low, high = Z_EDGES[:-1], Z_EDGES[1:]
        part = np.clip((high - z[:, :, None]) / (high - low), 0.0, 1.0)
        share = ratio((part * histogram.counts).sum(axis=(0, 2)), histogram.n)
    seen = record.post.n > 0
    share = np.where(seen & (record.post.high <= threshold), 0.0, share)
    return np.where(seen & (record.post.low > threshold), 1.0, share)


def _roles(record: LayerRecord) -> Any:
    """One word per channel, shape (C,); the order of the assignments is that of precedence, last first."""
    acts, known = acting(record), corners(record)
    roles = np.full(record.n_channels, "unknown", dtype=object)
    if acts.partition("(")[0] in SMOOTH:
        roles[:] = "mixed"
    elif acts in UNCHANGED:
        roles[:] = "linear"
    elif known is not None:
        _by_shares(roles, record, known)
    if record.gamma is not None and acts:
        roles[(np.abs(record.gamma) < _near_zero(record.gamma, record.pools)) & (roles != "dead")] = (
            "constant"
        )
    return roles


def _near_zero(gamma: Array, pools: str) -> float:
    """|γ| below which an output hardly varies: of norms over features, whose next weights make up for it, beside others."""
    return (
        NEAR_ZERO * min(1.0, float(np.median(np.abs(gamma))))
        if pools == CHANNELS and len(gamma)
        else NEAR_ZERO
    )


def _by_shares(roles: Any, record: LayerRecord, known: Corners) -> None:
    """For an activation with corners."""
    passes, saturates = _shares(record)
    whole = passes if known.identity == known.low else share_above(record, known.identity)
    changed = 1 - whole + np.nan_to_num(saturates)
    roles[~np.isnan(passes)] = "mixed"
    roles[passes < RARE] = "rare"
    roles[changed <= LINEAR] = "linear"
    roles[saturates > SATURATED] = "saturated"
    # what was on is not dead, whatever was predicted
    roles[(passes == 0) | (np.isnan(passes) & (dead_predicted(record) == 1))] = "dead"
