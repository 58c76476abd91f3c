"""Which channel columns travel with the page, and in which colors each is painted on the map."""

from __future__ import annotations

from dataclasses import dataclass

MOST_VALUES = 480_000
"""Numbers on a page, over all columns: what is beyond stays in `report.channels`, and the page says so."""

FEWEST = 16
"""Columns that even the widest network's page holds."""

COMPACT_VALUES, COMPACT_FEWEST, COMPACT_HISTOGRAMS = 120_000, 10, 8_000
"""The same in a notebook, which keeps its cells in its file; and up to how many channels it has histograms."""


@dataclass(frozen=True)
class Paint:
    """How a column becomes colors. `scale` is one of

    even      proportional to the value
    log       the logarithm of what is positive
    share     always from 0 to 1
    names     one color per word

    `limits` are the values at the ends of the colors, the same for every network, so that a healthy and a broken one do not
    look alike; where there are none the unit is the network's own, and the colors span its 2nd to 98th percentile.
    "diverging" colors are lightest at `centre` on a light page and darkest on a dark one.
    """

    label: str
    colours: str
    scale: str = "even"
    centre: float | None = None
    limits: tuple[float, float] | None = None


def _signed(label: str, reach: float | None) -> Paint:
    """What lies on both sides of 0."""
    return Paint(label, "diverging", centre=0, limits=None if reach is None else (-reach, reach))


PAINTS = {
    "shift": _signed("shift of the mean, in running σ", 1),
    "scale_ratio": Paint("standard deviation, measured / running", "diverging", "log", 1, (0.5, 2)),
    "fires": Paint("share of positive outputs", "mako", "share"),
    "role": Paint("role", "roles", "names"),
    "gamma": _signed("γ", 2),
    "beta": _signed("β", 2),
    "running_mean": _signed("running mean", None),
    "running_var": Paint("running variance", "viridis", "log", limits=(1e-4, 1e2)),
    "pre_mean": _signed("mean before the norm", None),
    "pre_var": Paint("variance before the norm", "viridis", "log", limits=(1e-4, 1e2)),
    "pre_skew": _signed("skewness before the norm", 3),
    "pre_kurtosis": Paint("excess kurtosis before the norm", "rocket", limits=(-2, 10)),
    "post_mean": _signed("mean after the norm", 2),
    "post_var": Paint("variance after the norm", "viridis", "log", limits=(1e-3, 10)),
    "kl": Paint("KL distance of measured from running", "rocket", "log", limits=(1e-4, 10)),
    "fires_predicted": Paint("share of positive outputs predicted from γ and β", "mako", "share"),
    "grad_gamma": _signed("gradient of γ, mean over passes", None),
    "grad_beta": _signed("gradient of β, mean over passes", None),
    "gamma_snr": Paint("signal-to-noise ratio of the gradient of γ", "viridis", "log", limits=(1e-2, 10)),
    "beta_snr": Paint("signal-to-noise ratio of the gradient of β", "viridis", "log", limits=(1e-2, 10)),
    "energy_removed": Paint("share of the gradient's energy removed", "mako", "share"),
    "importance": Paint("importance for the loss", "rocket", "log"),
    "dy_var": Paint("variance of the gradient at the output", "viridis", "log"),
    "dx_var": Paint("variance of the gradient at the input", "viridis", "log"),
    "share_class": Paint("share of the variance between classes", "mako", "share"),
    "share_image": Paint("share of the variance between samples", "mako", "share"),
    "share_within": Paint("share of the variance within a sample", "mako", "share"),
    "filter_norm": Paint("norm of the preceding weights", "viridis", "log", limits=(1e-2, 10)),
    "bits_lost": Paint("bits lost to one quantization scale per layer", "rocket", limits=(0, 8)),
    "gauss_w1": Paint("distance of the inputs from a Gaussian", "rocket", limits=(0, 0.5)),
}
"""Measures that the map can show."""

GROUPS = {
    "match with training": (
        "shift",
        "scale_ratio",
        "kl",
        "running_mean",
        "running_var",
        "pre_mean",
        "pre_var",
    ),
    "activity": ("fires", "role", "post_mean", "post_var", "fires_predicted"),
    "learned": ("gamma", "beta", "filter_norm", "bits_lost"),
    "shape and classes": (
        "pre_skew",
        "pre_kurtosis",
        "gauss_w1",
        "share_class",
        "share_image",
        "share_within",
    ),
    "gradients": (
        "grad_gamma",
        "grad_beta",
        "gamma_snr",
        "beta_snr",
        "energy_removed",
        "importance",
        "dy_var",
        "dx_var",
    ),
}
"""The same in the groups of the menu."""

AGAINST_RUNNING = ("shift", "scale_ratio", "kl")
"""Measures that say nothing where running statistics were never updated."""

COLUMNS = (
    *("gamma", "beta", "running_mean", "running_var", "pre_mean", "pre_var", "fires", "role"),
    *(
        "shift",
        "scale_ratio",
        "shift_se",
        "shift_q",
        "pre_skew",
        "pre_kurtosis",
        "post_mean",
        "post_var",
        "kl",
    ),
    *("grad_gamma", "grad_beta", "dy_var", "dx_var", "gamma_snr", "fires_predicted", "scale_se"),
    *("share_class", "share_within", "bits_lost", "n_nonfinite", "energy_removed", "importance", "beta_snr"),
    *("pre_min", "pre_max", "post_min", "post_max", "share_image", "filter_norm", "gauss_w1", "implied_mean"),
)
"""Every column that a page may carry, the ones it can least do without first."""


def chosen_columns(
    known: list[str], free: list[str], n_channels: int, most: int, fewest: int = FEWEST
) -> tuple[list[str], list[str]]:
    """Of the columns that hold anything: those that fit among `most` numbers, and those that do not.

    `free` ones take no space.
    """
    wanted = [name for name in COLUMNS if name in known]
    room = max(most // max(n_channels, 1), fewest)
    packed = [name for name in wanted if name not in free][:room]
    shown = [name for name in wanted if name in free or name in packed]
    return shown, [name for name in wanted if name not in shown]
