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
    *("own_mean", "own_sd", "own_groups", "memory_moved"),
)
"""Columns of `report.layers` that both sides show."""

_WHAT = {
    "affine": ("the outputs that β and γ set", "β", "γ", "the layer's |γ|"),
    "running": ("the running statistics", "running_mean", "√running_var", "running σ"),
    "pre": ("the inputs", "pre_mean", "√pre_var", "σ"),
    "post": ("the outputs", "post_mean", "√post_var", "the layer's σ"),
}
_BOTH = "the root mean square of both standard deviations"
_WITH_EPS = f"{_BOTH}, the smaller eps added to their square"
_UNIT = {"affine": _BOTH, "running": _WITH_EPS, "pre": _WITH_EPS, "post": _BOTH}
_W2 = "2-Wasserstein distance: Dowson & Landau 1982"
_BH = "Benjamini & Hochberg 1995"


def _of_aspect(aspect: str) -> tuple[Column, ...]:
    words, mean, sd, unit = _WHAT[aspect]
    return (
        Column(
            f"{aspect}_shift",
            f"Shift of the mean of {words} from A to B.",
            f"({mean} of B − of A) / {_UNIT[aspect]}",
            unit,
        ),
        Column(
            f"{aspect}_ratio",
            f"Standard deviation of {words}, B relative to A.",
            f"{sd} of B / of A",
        ),
        Column(
            f"{aspect}_gap",
            f"Difference of {words}, mean and standard deviation together.",
            f"√(difference of means² + of standard deviations²) / {_UNIT[aspect]}",
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
            f"Standard error of {aspect}_shift, counting samples and not pixels.",
            "√(V_A/n_A + V_B/n_B) / σ, V = variance of a sample's mean; of pairs, the error of the difference",
            unit,
            "Welch 1947",
        ),
        Column(
            f"{aspect}_shift_q",
            f"False discovery rate of a change of the mean of {words}: of all with it or less, so much is noise at most.",
            "Benjamini-Hochberg over means and standard deviations of all channels, Student's t with Welch's degrees",
            "0 to 1",
            _BH,
        ),
        Column(
            f"{aspect}_ratio_se",
            f"Standard error of ln {aspect}_ratio, counting samples and not pixels.",
            "√(S_A/n_A/v_A² + S_B/n_B/v_B²) / 2, S = variance of a sample's mean of (x − mean)²",
        ),
        Column(
            f"{aspect}_ratio_q",
            f"False discovery rate of a change of the standard deviation of {words}, as {aspect}_shift_q.",
            "as for the mean",
            "0 to 1",
            _BH,
        ),
    )


def _of_side(side: str, other: str) -> tuple[Column, ...]:
    """What of a side's vectors no difference can show."""
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
        "Distance between the distributions of the inputs, from their histograms.",
        "∫ |F_B − F_A| dx / σ",
        "σ",
        "1-Wasserstein distance: Vallender 1974",
    ),
    Column(
        "pre_ks",
        "Largest difference between the cumulative distributions of the inputs.",
        "max |F_B − F_A|",
        "0 to 1",
        "Massey 1951",
    ),
    Column(
        "own_shift",
        "Shift of the mean that the norm takes from each sample, from A to B.",
        "(mean of μₙ of B − of A) / σ, mean over groups; σ² = mean of σₙ² of both sides + the smaller eps",
        "σ",
        table="layers",
    ),
    Column(
        "own_ratio",
        "Standard deviation (root mean square for RMS norm) that the norm takes from each sample, B relative to A.",
        "√(mean of σₙ²) of B / of A, geometric mean over groups",
        table="layers",
    ),
    Column(
        "own_gap",
        "Difference of the statistics that the norm takes from each sample, mean and standard deviation together.",
        "√(difference of means² + of standard deviations²) / σ, root mean square over groups",
        "σ",
        _W2,
        "layers",
    ),
    Column(
        "error_from",
        "What errors count: pairs of folds, where both sides saw the same samples in the same order, folds, or samples.",
        "pairs: 10 folds or more, with as many samples on both sides, whose means at the first norm correlate by 0.9; "
        "the error is that of their differences",
        "samples, folds or pairs",
        "Busing, Meijer & van der Leeden 1999; Smyth 2004",
        table="layers",
    ),
    Column("fires_change", "Change of the share of positive outputs.", "fires of B − of A", "0 to 1"),
    Column(
        "pre_changed",
        "Whether the inputs changed beyond sampling error.",
        "pre_shift_q or pre_ratio_q < 0.01",
    ),
    Column(
        "post_changed",
        "Whether the outputs changed beyond sampling error.",
        "post_shift_q or post_ratio_q < 0.01",
    ),
    Column(
        "pre_noise",
        "Difference of the inputs that the choice of samples alone would make.",
        "√(mean of se²)",
        "σ",
        table="layers",
    ),
    Column(
        "post_noise",
        "Difference of the outputs that the choice of samples alone would make.",
        "√(mean of se²)",
        "the layer's σ",
        table="layers",
    ),
    Column(
        "pre_changed_share",
        "Share of channels whose inputs changed beyond sampling error.",
        "share of pre_changed",
        "0 to 1",
        table="layers",
    ),
    Column(
        "post_changed_share",
        "Share of channels whose outputs changed beyond sampling error.",
        "share of post_changed",
        "0 to 1",
        table="layers",
    ),
    Column(
        "pre_w1_median",
        "Typical distance between the distributions of the inputs.",
        "median pre_w1",
        "σ",
        table="layers",
    ),
    Column(
        "pre_w1_noise",
        "Typical distance between the distributions that the choice of samples alone would make.",
        "median √(2/π) · √(pre_shift_se² + (error of the standard deviation)²), as of Gaussians",
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
        "went_silent",
        "Channels with positive outputs in A and none in B.",
        "count",
        "channels",
        table="layers",
    ),
    Column(
        "filters_differ",
        "Whether the weights feeding the norm differ in length or bias, where both sides know them.",
        table="layers",
    ),
    Column(
        "weights_before_differ",
        "Whether weights, γ, β or running statistics before the norm differ, as far as both sides recorded them.",
        table="layers",
    ),
    Column(
        "dropout_before",
        "Modules between the previous norm and this one that drop values in train mode, by the module tree.",
        table="layers",
    ),
    *_of_side("A", "B"),
    *_of_side("B", "A"),
    Column("identical", "Whether every number of both sides is the same to the last bit.", table="layers"),
    Column(
        "change",
        "The largest of the five differences; the page sorts layers by it.",
        "max of affine_gap, running_gap, pre_gap, post_gap, own_gap",
        "σ",
        table="layers",
    ),
)
