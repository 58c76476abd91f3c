"""The rule about the model's input: a mistake of preprocessing, recognised by what the first norm remembers."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from bnprobe.recording.names import NEVER_UPDATED
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.rules.rule import Evidence, Finding, Rule
from bnprobe.rules.thresholds import DEFAULT

GIVE_CONSTANTS = "Give attach the constants of training, normalize=(mean, std), and the cause can be named."
"""Where none were given."""


def wrong_preprocessing(evidence: Evidence) -> Iterator[Finding]:
    """The mistake that explains best what the first norm sees; where none is sure, how far the inputs are off."""
    if not explained(evidence):
        return
    row = evidence.preprocessing.iloc[0]
    rescaled = max(row["scale_predicted"], 1 / row["scale_predicted"])
    if not (row["shift"] > VISIBLE_SHIFT or rescaled > evidence.limits.variance_ratio**0.5):
        return
    severity = "critical" if not 1 / 4 < row["scale_predicted"] < 4 else "warning"
    yield (_with_cause if row["sure"] else _without_cause)(severity, row)


def explained(evidence: Evidence) -> bool:
    """Whether some map of the inputs makes what the first norm sees."""
    found = evidence.preprocessing
    return not found.empty and bool(found["mistake"].iloc[0])


def constants_missing(evidence: Evidence) -> bool:
    """Whether the first norm tells the input of training, and nobody gave the constants to read it by."""
    found = evidence.preprocessing
    return not found.empty and bool((found["constants"] != "given").all())


def _with_cause(severity: str, row: pd.Series) -> Finding:
    by = "given to attach" if row["constants"] == "given" else "in general use, as none were given to attach"
    return Finding(
        severity,
        row["layer"],
        f"The inputs are not prepared as in training: it looks as if {row['mistake']}.",
        f"{_distance(row)}; this mistake leaves {row['left_over']:.2f} of it, and predicts a deviation "
        f"{row['scale_predicted']:.3g} times the remembered one, where {row['scale']:.3g} times is seen. "
        f"Constants: {by}.",
        f"Prepare the images as in training; of images as they come now this makes the right ones: `{row['undo']}`.",
    )


def _without_cause(severity: str, row: pd.Series) -> Finding:
    """Several causes would do, or none does closely: none is named, and no advice rests on one."""
    if row["constants"] == "none":
        says = f"The inputs differ from those of training: it is as if {row['mistake']}."
        do = (
            f"{GIVE_CONSTANTS} Then prepare the images as in training. Until then this brings mean and deviation back, "
            f"right unless light and dark are exchanged: `{row['undo']}`."
        )
    else:
        says = "The inputs differ from those of training, and what was done to them is not certain."
        do = (
            "Compare the preprocessing with that of training, step by step (range, mean, deviation, colour order)."
            + (f" {GIVE_CONSTANTS}" if row["constants"] == "guessed" else "")
        )
    return Finding(
        severity,
        row["layer"],
        says,
        f"{_distance(row)}, and their deviation is {row['scale']:.3g} times the remembered one.",
        do,
    )


def _distance(row: pd.Series) -> str:
    return f"the first norm's means lie {row['shift']:.2f} remembered σ (root mean square) off"


def wrong_size(evidence: Evidence) -> Iterator[Finding]:
    """Images finer or coarser than those of training."""
    top = evidence.limits.variance_ratio**0.5
    if explained(evidence):
        return  # another mistake explains what is seen
    for _, row in evidence.layers.iterrows():
        ratio = row["detail_ratio"]
        known = row["verdict"] != NEVER_UPDATED and row["n_images"] >= evidence.limits.few_images
        if not known or row["call"] or not (ratio > top or ratio < 1 / top):
            continue
        smoother = ratio < 1
        yield Finding(
            "warning",
            row["layer"],
            "The images are smoother than those of training: enlarged, blurred, or compressed."
            if smoother
            else "The images have more fine detail than those of training: shrunk without smoothing, or noisy.",
            f"filters that see edges have {ratio:.2g} times the deviation they remember, measured by those that see areas "
            f"(thresholds {1 / top:.2g} and {top:.2g}, half and twice the variance).",
            "Use the size and the resizing of training. By this estimate, to bring these images back: "
            f'`x = torch.nn.functional.interpolate(x, scale_factor={ratio:.2g}, mode="bilinear", antialias=True)`.'
            if smoother
            else "Use the size and the resizing of training (with antialias=True). To smooth these images: "
            "`x = torch.nn.functional.avg_pool2d(x, 3, 1, 1)`.",
        )


RULES = (
    Rule(
        "input-not-as-trained",
        "Are the inputs prepared as in training?",
        "The first norm's running means are its weights times the mean input of training; "
        "https://github.com/pytorch/vision/issues/2079",
        f"a first norm whose means lie within {VISIBLE_SHIFT:g} running σ, or off in a way that no known mistake explains",
        wrong_preprocessing,
    ),
    Rule(
        "input-size",
        "Are the images as fine as those of training?",
        "Simoncelli & Olshausen 2001, Natural image statistics and neural representation; "
        "Touvron et al. 2019, arXiv:1906.06423 (sizes of training and test)",
        f"a first norm whose fine filters have between {1 / DEFAULT.variance_ratio:g} and {DEFAULT.variance_ratio:g} "
        "times the remembered variance, measured by the coarse ones",
        wrong_size,
    ),
)
