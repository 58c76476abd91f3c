"""Shape: how Gaussian the inputs are, and whether outputs have the mean beta and the deviation |gamma|."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import output_moments
from bnprobe.report.chapters.chapter import NO_DATA, Absent, Material, named
from bnprobe.report.colours import MEMORY, SEEN
from bnprobe.report.figures.from_tables import by_depth, level, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, listed, number
from bnprobe.report.page.blocks import Facts, Figure, Prose, Section

TITLE = "Shape, and the promise of β and γ"

NEARLY = 0.02
"""Distance of the L1 ratio from 1 within which a histogram cannot tell a shape from a Gaussian."""

WHY = {
    output_moments.EPS: "eps is a visible part of the variance",
    output_moments.OWN: "each sample is normalized by its own statistics, over more than one channel or one image",
    output_moments.NEVER: "the running statistics were never updated",
    output_moments.SMALL: "too few images to tell a shift from chance",
    output_moments.SHIFT: "the data differ from those that the norm remembers",
    output_moments.BY_BATCH: "batches were normalized by their own statistics",
    output_moments.OTHER: "the layer does more than its formula",
}


def chapter(material: Material) -> Section | Absent:
    """The sentence, two quantities by depth, and the reasons."""
    layers = material.tables.layers
    known = layers[layers["why_not"] != output_moments.UNKNOWN]
    if known.empty:
        why = NO_DATA if material.recording.weights_only else "no norm saw finite values"
        return Absent(TITLE, why)
    reasons = [Facts(tuple(_reasons(known)))] if (known["why_not"] != output_moments.HOLDS).any() else []
    words = [_promise_words(known), *_shape_words(known)]
    return Section("shape", TITLE, (Prose(tuple(words)), _figure(known), *reasons))


def _promise_words(known: pd.DataFrame) -> str:
    holds = int((known["why_not"] == output_moments.HOLDS).sum())
    off = known[known["why_not"] != output_moments.HOLDS]
    text = (
        f"A norm is said to give its outputs the mean β and the deviation |γ|: here that holds at {holds} of "
        f"{count(len(known), 'norm')}"
    )
    if off.empty:
        return text + "."
    with np.errstate(divide="ignore"):
        worst = off.iloc[int(np.nanargmax(np.abs(np.log(of(off, "gamma_ratio_median")))))]
    return (
        f"{text}; it is furthest from true at {named(worst)}, where the deviation is typically "
        f"{number(worst['gamma_ratio_median'], 2)} |γ| and the mean {number(worst['beta_error_median'], 2)} |γ| off, "
        f"because {WHY[worst['why_not']]}."
    )


def _shape_words(known: pd.DataFrame) -> list[str]:
    ratio = known["l1_ratio_median"].dropna()
    if ratio.empty:
        return []
    if (ratio - 1).abs().max() < NEARLY:
        return [
            f"The inputs are nearly Gaussian at all {count(len(ratio), 'norm')} whose shape could be read: their mean "
            f"absolute deviation is {number(ratio.min(), 3)} to {number(ratio.max(), 3)} of what a Gaussian of the same "
            "deviation has (0.89 for a Laplacian)."
        ]
    far = known.iloc[int(np.nanargmax(np.abs(of(known, "l1_ratio_median") - 1)))]
    kind = "heavier tails than" if far["l1_ratio_median"] < 1 else "shorter tails than"
    return [
        f"The inputs are least like a Gaussian at {named(far)}: their mean absolute deviation is "
        f"{number(far['l1_ratio_median'], 2)} of what a Gaussian of the same deviation has, so they have {kind} one "
        f"(0.89 for a Laplacian); over all norms this ratio runs from {number(ratio.min(), 2)} to {number(ratio.max(), 2)}."
    ]


def _reasons(known: pd.DataFrame) -> list[tuple[str, str]]:
    rows = []
    for reason, words in WHY.items():
        there = [named(row) for _, row in known[known["why_not"] == reason].iterrows()]
        if there:
            rows.append((reason, f"{words}: {listed(there, 6)}"))
    return rows


def _figure(known: pd.DataFrame) -> Figure:
    one = np.ones(len(known))
    kept = Curves(
        "outputs against what γ and β promise (median channel)",
        (
            level(one, ""),
            Line(of(known, "gamma_ratio_median"), "deviation / |γ|, promised 1", SEEN),
            Line(of(known, "beta_error_median"), "|mean − β| / |γ|, promised 0", MEMORY),
        ),
        limits=(0, None),
    )
    panels = [kept]
    if known["l1_ratio_median"].notna().sum() > 1:
        low = min(0.85, float(np.nanmin(of(known, "l1_ratio_median"))) - 0.02)
        high = max(1.1, float(np.nanmax(of(known, "l1_ratio_median"))) + 0.02)
        panels.append(
            Curves(
                "L1 ratio of the inputs: 1 is a Gaussian (median channel)",
                (Line(of(known, "l1_ratio_median")),),
                levels=((1.0, "Gaussian"), (0.886, "Laplacian"), (1.085, "uniform")),
                limits=(low, high),
            )
        )
    return Figure(
        "shape",
        "How far outputs keep what gamma and beta promise, and how Gaussian inputs are, by depth.",
        by_depth(known, tuple(panels)),
        "Above: the deviation of the outputs against |γ|, and how far their mean lies from β. Below: the mean absolute "
        "deviation of the inputs against that of a Gaussian; less than 1 means heavy tails.",
    )
