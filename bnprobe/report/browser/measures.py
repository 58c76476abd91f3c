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

    even      from the 2nd to the 98th percentile, or about `centre` where there is one
    log       the logarithm of what is positive, else as above
    share     always from 0 to 1
    names     one color per word
    """

    label: str
    colours: str
    scale: str = "even"
    centre: float | None = None


PAINTS = {
    "shift": Paint("shift of the mean, in running σ", "vlag", centre=0),
    "scale_ratio": Paint("standard deviation, measured / running", "vlag", "log", centre=1),
    "fires": Paint("share of positive outputs", "mako", "share"),
    "role": Paint("role", "roles", "names"),
    "gamma": Paint("γ", "icefire", centre=0),
    "beta": Paint("β", "vlag", centre=0),
    "running_mean": Paint("running mean", "vlag", centre=0),
    "running_var": Paint("running variance", "viridis", "log"),
    "pre_mean": Paint("mean before the norm", "vlag", centre=0),
    "pre_var": Paint("variance before the norm", "viridis", "log"),
    "pre_skew": Paint("skewness before the norm", "vlag", centre=0),
    "pre_kurtosis": Paint("excess kurtosis before the norm", "rocket"),
    "post_mean": Paint("mean after the norm", "vlag", centre=0),
    "post_var": Paint("variance after the norm", "viridis", "log"),
    "kl": Paint("KL distance of measured from running", "rocket", "log"),
    "fires_predicted": Paint("share of positive outputs predicted from γ and β", "mako", "share"),
    "grad_gamma": Paint("gradient of γ, mean over passes", "vlag", centre=0),
    "grad_beta": Paint("gradient of β, mean over passes", "vlag", centre=0),
    "gamma_snr": Paint("signal-to-noise ratio of the gradient of γ", "viridis", "log"),
    "beta_snr": Paint("signal-to-noise ratio of the gradient of β", "viridis", "log"),
    "energy_removed": Paint("share of the gradient's energy removed", "mako", "share"),
    "importance": Paint("importance for the loss", "rocket", "log"),
    "dy_var": Paint("variance of the gradient at the output", "viridis", "log"),
    "dx_var": Paint("variance of the gradient at the input", "viridis", "log"),
    "share_class": Paint("share of the variance between classes", "mako", "share"),
    "share_image": Paint("share of the variance between samples", "mako", "share"),
    "share_within": Paint("share of the variance within a sample", "mako", "share"),
    "filter_norm": Paint("norm of the preceding weights", "viridis", "log"),
    "bits_lost": Paint("bits lost to one quantization scale per layer", "rocket"),
    "gauss_w1": Paint("distance of the inputs from a Gaussian", "rocket"),
}
"""Measures that the map can show, the first one known is shown first."""

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

PROFILES = (
    ("var_ratio_median", "variance, measured / running", "log", 1.0),
    ("shift_rms", "size of the shift (rms), in running σ", "even", None),
    ("pre_sd_median", "standard deviation before the norm", "log", None),
    ("own_sd", "scale that the norm divides by", "log", None),
    ("gamma_abs_median", "|γ|", "even", None),
    ("fires_median", "share of positive outputs", "share", None),
    ("grad_out", "length of the gradient at the output", "log", None),
)
"""Layer columns drawn by depth above the map: name, title, scale, line of reference. The first four known are shown."""

MOST_PROFILES = 4


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
