"""Are outputs as β and γ intend: whether they have mean β and standard deviation |γ|, and how Gaussian inputs are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import output_moments
from bnprobe.report.chapters.chapter import NO_DATA, Absent, Material, against, all_norms, named, norms
from bnprobe.report.colours import EXPECTED, MEASURED
from bnprobe.report.figures.from_tables import by_depth, level, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import listed, number
from bnprobe.report.page.blocks import Facts, Figure, Prose, Section

TITLE = "Are outputs as β and γ intend?"

NEARLY = 0.05
"""Distance of the L1 ratio from 1 that is too small to speak of: two digits would say 1.0."""

VISIBLE = output_moments.OFF_SCALE
"""|ln(standard deviation / |γ|)| from which a norm's outputs miss the scale they should have."""

WHY = {
    output_moments.EPS: "eps is a visible part of the variance",
    output_moments.OWN: "each sample is normalized with its own statistics",
    output_moments.NEVER: "the running statistics were never updated",
    output_moments.SMALL: "too few samples were run to say why",
    output_moments.SHIFT: "the inputs do not match the running statistics",
    output_moments.BY_BATCH: "each batch was normalized with its own statistics",
    output_moments.OTHER: "the layer does more than its formula",
}


def chapter(material: Material) -> Section | Absent:
    """The sentence, two quantities by depth, and the reasons."""
    layers = material.tables.layers
    known = layers[layers["why_not"] != output_moments.UNKNOWN]
    if known.empty:
        why = NO_DATA if material.recording.weights_only else "no norm received finite values"
        return Absent(TITLE, why)
    reasons = tuple(_reasons(known))
    words = [_target_words(known), *_shape_words(known)]
    return Section(
        "shape",
        TITLE,
        (Prose(tuple(words)), _figure(known), *([Facts(reasons)] if reasons else [])),
        short="Outputs",
    )


def _target_words(known: pd.DataFrame) -> str:
    holds = int((known["why_not"] == output_moments.HOLDS).sum())
    off = known[known["why_not"] != output_moments.HOLDS]
    if (known["why_not"] == output_moments.OWN).all():
        return _of_samples(known)
    should = "Outputs should have mean β and standard deviation |γ|"
    if off.empty:
        return f"{should}, and at {all_norms(len(known))} they do."
    none = {1: "At the only norm they do not", 2: "They do at neither norm"}
    do = none.get(len(known), f"They do at none of the {norms(len(known))}")
    if holds:
        do = f"At {holds} of {norms(len(known))} they do"
    ratio = of(off, "gamma_ratio_median")
    if not np.isfinite(ratio).any():
        return f"{should}. {do}."
    with np.errstate(divide="ignore"):
        worst = off.iloc[int(np.nanargmax(np.abs(np.log(ratio))))]
    return f"{should}. {do}; at {named(worst)} {_miss(worst)}, {_why(worst['why_not'])}."


def _of_samples(known: pd.DataFrame) -> str:
    """Of norms that divide each sample by its own scale: channels need not have the scale that γ would give them."""
    text = "Each sample is normalized with its own statistics, so outputs of a channel need not have standard deviation |γ|"
    ratio = of(known, "gamma_ratio_median")
    if not np.isfinite(ratio).any():
        return f"{text}."
    low, high = (known.iloc[int(place(ratio))] for place in (np.nanargmin, np.nanargmax))
    if low["gamma_ratio_median"] == high["gamma_ratio_median"]:
        return f"{text}: theirs is typically {number(low['gamma_ratio_median'], 2)} times it."
    return (
        f"{text}: theirs is typically between {number(low['gamma_ratio_median'], 2)} ({named(low)}) and "
        f"{number(high['gamma_ratio_median'], 2)} times it ({named(high)})."
    )


def _why(reason: str) -> str:
    """The reason to end a sentence with; that none can be given is not one."""
    return f"{'and' if reason == output_moments.SMALL else 'because'} {WHY[reason]}"


def _miss(row: pd.Series) -> str:
    """How the outputs of a norm miss their target: by their scale, or where that is right, by their mean."""
    ratio = row["gamma_ratio_median"]
    if not np.exp(-VISIBLE) < ratio < np.exp(VISIBLE):
        return f"their standard deviation is {against(ratio, '|γ|')}"
    return f"their mean is off by {number(row['beta_error_median'], 2)} |γ|"


def _shape_words(known: pd.DataFrame) -> list[str]:
    ratio = known["l1_ratio_median"].dropna()
    if ratio.empty:
        return []
    if (ratio - 1).abs().max() < NEARLY:
        measured = "" if len(ratio) == len(known) else " whose shape could be measured"
        return [f"Inputs are close to Gaussian at {all_norms(len(ratio))}{measured}."]
    far = known.iloc[int(np.nanargmax(np.abs(of(known, "l1_ratio_median") - 1)))]
    tails = "heavier" if far["l1_ratio_median"] < 1 else "lighter"
    low, high = number(ratio.min(), 2), number(ratio.max(), 2)
    ends = (
        f" Over all norms this ratio ranges from {low} to {high}." if len(ratio) > 1 and low != high else ""
    )
    return [
        f"Inputs are least Gaussian at {named(far)}, where their tails are {tails}: the mean absolute deviation is "
        f"{number(far['l1_ratio_median'], 2)} times that of a Gaussian with the same standard deviation (0.89 for a "
        f"Laplacian).{ends}"
    ]


def _reasons(known: pd.DataFrame) -> list[tuple[str, str]]:
    rows = []
    for reason, words in WHY.items():
        there = [named(row) for _, row in known[known["why_not"] == reason].iterrows()]
        if there and not (
            reason == output_moments.OWN and len(there) == len(known)
        ):  # the sentence says it of all
            rows.append((reason, f"{words}: {listed(there, 6)}"))
    return rows


def _figure(known: pd.DataFrame) -> Figure:
    one = np.ones(len(known))
    kept = Curves(
        "outputs against their targets (median channel)",
        (
            level(one, ""),
            Line(of(known, "gamma_ratio_median"), "standard deviation / |γ|, target 1", MEASURED),
            Line(of(known, "beta_error_median"), "|mean − β| / |γ|, target 0", EXPECTED),
        ),
        limits=(0, None),
    )
    panels = [kept]
    caption = "Standard deviation of the outputs relative to |γ|, and the distance of their mean from β."
    if known["l1_ratio_median"].notna().sum() > 1:
        low = min(0.85, float(np.nanmin(of(known, "l1_ratio_median"))) - 0.02)
        high = max(1.1, float(np.nanmax(of(known, "l1_ratio_median"))) + 0.02)
        panels.append(
            Curves(
                "mean absolute deviation of the inputs relative to a Gaussian's (median channel)",
                (Line(of(known, "l1_ratio_median")),),
                levels=((1.0, "Gaussian"), (0.886, "Laplacian"), (1.085, "uniform")),
                limits=(low, high),
            )
        )
        caption += " The mean absolute deviation is relative to that of a Gaussian with the same standard deviation: below "
        caption += "1, tails are heavier."
    return Figure(
        "shape",
        "How close outputs come to mean β and standard deviation |γ|, and how Gaussian inputs are, by depth.",
        by_depth(known, tuple(panels)),
        caption,
    )
