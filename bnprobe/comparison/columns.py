"""What the columns of a comparison mean; each side's own are its recording's, with _a or _b at the end."""

from __future__ import annotations

from bnprobe.comparison.spread import ASPECTS
from bnprobe.measures import Column

SIDE_BY_SIDE = (
    *("gamma", "beta", "running_mean", "running_var"),
    *("pre_mean", "pre_var", "post_mean", "post_var", "fires"),
)
"""Columns of `report.channels` that both sides show."""
LAYER_SIDES = (
    *("kind", "mode", "normalized_by", "n_images", "n_nonfinite"),
    *("eps", "momentum", "n_batches_tracked"),
)
"""Columns of `report.layers` that both sides show."""

_WHAT = {
    "affine": ("what the layer was taught to put out", "β", "γ", "the layer's |γ|"),
    "running": ("what it remembers", "running_mean", "√(running_var + eps)", "remembered σ"),
    "pre": ("its inputs", "pre_mean", "√(pre_var + eps)", "σ"),
    "post": ("its outputs", "post_mean", "√post_var", "the layer's σ"),
}
_W2 = "2-Wasserstein distance: Dowson & Landau 1982"
_BH = "Benjamini & Hochberg 1995"


def _of_aspect(aspect: str) -> tuple[Column, ...]:
    words, mean, sd, unit = _WHAT[aspect]
    return (
        Column(
            f"{aspect}_shift",
            f"How far the mean of {words} lies from A to B.",
            f"({mean} of B − of A) / the root mean square of both deviations",
            unit,
        ),
        Column(
            f"{aspect}_ratio",
            f"Deviation of {words} in B against A.",
            f"{sd} of B / of A",
        ),
        Column(
            f"{aspect}_gap",
            f"How far {words} lie apart, mean and deviation together."
            if words.startswith("its")
            else f"How far {words} lies apart, mean and deviation together.",
            "√(difference of means² + difference of deviations²) / the root mean square of both deviations",
            unit,
            _W2,
            "both",
        ),
    )


def _certain(aspect: str) -> tuple[Column, ...]:
    words, unit = _WHAT[aspect][0], _WHAT[aspect][3]
    return (
        Column(
            f"{aspect}_shift_se",
            f"Standard error of {aspect}_shift, counting images and not pixels.",
            "√(V_A/n_A + V_B/n_B) / σ, V = variance of an image's mean",
            unit,
            "Welch 1947",
        ),
        Column(
            f"{aspect}_shift_q",
            f"Chance of calling the mean of {words} changed by mistake, adjusted for all tests of this comparison.",
            "Benjamini-Hochberg over means and deviations of all channels, Student's t with Welch's degrees",
            "0 to 1",
            _BH,
        ),
        Column(
            f"{aspect}_ratio_se",
            f"Standard error of ln {aspect}_ratio, counting images and not pixels.",
            "√(S_A/n_A/v_A² + S_B/n_B/v_B²) / 2, S = variance of an image's mean of (x − mean)²",
        ),
        Column(
            f"{aspect}_ratio_q",
            f"Chance of calling the deviation of {words} changed by mistake, adjusted for all tests.",
            "as for the mean",
            "0 to 1",
            _BH,
        ),
    )


def _of_side(side: str, other: str) -> tuple[Column, ...]:
    """What of a side's vectors no gap can tell."""
    rule = f"not finite, or running_var < 0, and not the same in {other}"
    return (
        Column(f"poisoned_{side.lower()}", f"Whether a stored value of {side} cannot be used.", rule),
        Column(
            f"poison_{side.lower()}",
            f"Which stored values of {side} cannot be used, in how many channels.",
            rule,
            table="layers",
        ),
        Column(
            f"missing_{side.lower()}",
            f"Vectors that {other} stores and {side} does not.",
            table="layers",
        ),
    )


COLUMNS = (
    Column("layer", "Path of the module, the same in both models.", table="both"),
    Column("call", "Which call of the layer within one forward pass, from 0.", table="both"),
    Column("channel", "Index of the channel."),
    Column("n_channels", "Number of channels.", table="layers"),
    *(column for aspect in ASPECTS for column in _of_aspect(aspect)),
    *_certain("pre"),
    *_certain("post"),
    Column(
        "pre_w1",
        "How far the distributions of the inputs lie apart, as they are, by their histograms.",
        "∫ |F_B − F_A| dx / σ",
        "σ",
        "1-Wasserstein distance: Vallender 1974",
    ),
    Column(
        "pre_ks",
        "Largest gap between the cumulative shares of the inputs.",
        "max |F_B − F_A|",
        "0 to 1",
        "Massey 1951",
    ),
    Column("fires_change", "Change of the share of positive outputs.", "fires of B − of A", "0 to 1"),
    Column("pre_changed", "Whether the inputs surely changed.", "pre_shift_q or pre_ratio_q < 0.01"),
    Column("post_changed", "Whether the outputs surely changed.", "post_shift_q or post_ratio_q < 0.01"),
    Column(
        "pre_noise",
        "Gap of the inputs that the choice of images alone would make.",
        "√(mean of se²)",
        "σ",
        table="layers",
    ),
    Column(
        "post_noise",
        "Gap of the outputs that the choice of images alone would make.",
        "√(mean of se²)",
        "the layer's σ",
        table="layers",
    ),
    Column(
        "pre_changed_share",
        "Share of channels whose inputs surely changed.",
        "share of pre_changed",
        "0 to 1",
        table="layers",
    ),
    Column(
        "post_changed_share",
        "Share of channels whose outputs surely changed.",
        "share of post_changed",
        "0 to 1",
        table="layers",
    ),
    Column(
        "pre_w1_median",
        "Typical distance of the distributions of the inputs.",
        "median pre_w1",
        "σ",
        table="layers",
    ),
    Column(
        "fires_change_mean",
        "Typical change of the share of positive outputs.",
        "mean |fires_change|",
        "0 to 1",
        table="layers",
    ),
    Column(
        "went_silent", "Channels that were positive in A and never in B.", "count", "channels", table="layers"
    ),
    Column(
        "filters_differ",
        "Whether the weights before the norm differ in length or bias, where both sides know them.",
        table="layers",
    ),
    *_of_side("A", "B"),
    *_of_side("B", "A"),
    Column("identical", "Whether every number of both sides is the same to the last bit.", table="layers"),
    Column(
        "change",
        "The largest of the four gaps: by it the layers are sorted.",
        "max of affine_gap, running_gap, pre_gap, post_gap",
        "σ",
        table="layers",
    ),
)
