"""What was already implied: how much of the remembered means follows from the layers before, and what is new."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Fit, pooled
from bnprobe.measures.shape import median
from bnprobe.report.chapters.chapter import Absent, Material
from bnprobe.report.colours import GREEN, INK, MEMORY, MUTED, ROSE, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Cloud, Clouds, Curves, Line
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE = "What was already implied"

CONTROLS = (
    ("permuted", "channels permuted", VIOLET),
    ("constant", "all at their mean", MUTED),
    ("signed", "γ for |γ|", GREEN),
    ("unpadded", "borders ignored", ROSE),
)
CLEARLY = 0.01
"""R² by which the prediction must beat controls that ignore which channel is which, or it says nothing of them."""
LOWEST = -0.2
"""R² below which a control is drawn no deeper: worse than the average is bad enough."""


def chapter(material: Material) -> Section | Absent:
    """The sentence, implied against remembered, and the fit with its controls by depth."""
    fit = pooled(material.recording.layers)
    if not fit.n_channels:
        return Absent(TITLE, "no norm with a memory has norms and weights before it that could be followed")
    if np.isnan(fit.r2):
        return Absent(TITLE, "all means are remembered alike, as if nothing was learned")
    known = material.tables.layers[material.tables.layers["implied_mean_r2"].notna()]
    figures = (_clouds(material.tables.channels), *([_depth(known)] if len(known) > 1 else []))
    return Section("implied", TITLE, (Prose((words(fit), *_variance(known))), *figures))


def words(fit: Fit) -> str:
    """How much of the remembered means the layers before imply, and what the controls make of it."""
    # without a negative γ, or a border, that control is the fit itself
    other = [name for name in _CONTROLS if abs(fit.controls[name] - fit.r2) > 1e-9]
    controls = ", ".join(f"{number(fit.controls[name], 2)} with {_CONTROLS[name]}" for name in other)
    remember = "norm remembers" if fit.n_layers == 1 else "norms remember"
    if any(_does_as_well(fit, name) for name in other):
        return (
            f"How much of what {fit.n_layers} {remember} as the mean follows from the norms and weights before cannot be "
            f"told: predicted from them it has R² {number(fit.r2, 3)} over {count(fit.n_channels, 'channel')}, but controls "
            f"that should do worse have {controls}."
        )
    worse = f" Controls that should do worse: {controls}." if controls else ""
    return (
        f"Of what {fit.n_layers} {remember} as the mean, {share(max(fit.r2, 0.0))} follows from the norms and "
        f"weights before (R² {number(fit.r2, 3)}, typically {number(fit.rmse, 2)} remembered σ off, over "
        f"{count(fit.n_channels, 'channel')}).{worse}"
    )


def _does_as_well(fit: Fit, name: str) -> bool:
    """Whether a control takes the claim away; one that ignores which channel is which must be clearly worse."""
    margin = CLEARLY if name in ("permuted", "constant") else 0.0
    return fit.controls[name] >= fit.r2 - margin


_CONTROLS = {
    "permuted": "the channels before permuted",
    "constant": "all of them at their mean",
    "signed": "γ for |γ|",
    "unpadded": "borders taken for interior",
}


def _variance(known: pd.DataFrame) -> list[str]:
    ratio = median(of(known, "implied_var_ratio_median")) if len(known) else np.nan
    if np.isnan(ratio):
        return []
    side = "more" if ratio > 1 else "less"
    return [
        f"The remembered variance is typically {number(ratio, 2)} times what independent inputs would give: it is {side} "
        "because channels and neighbouring places vary together, and that cannot be read from the layer before."
    ]


def _clouds(channels: pd.DataFrame) -> Figure:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, gap = of(channels, "running_mean"), of(channels, "implied_gap")
        sigma = np.where(gap != 0, (mean - of(channels, "implied_mean")) / gap, np.nan)
        remembered = mean / sigma
    cloud = Cloud(
        "the remembered mean of every channel",
        remembered - gap,
        remembered,
        "implied by the layers before, in remembered σ",
        "remembered, in remembered σ",
        colour=MEMORY,
    )
    return Figure(
        "implied",
        "Remembered mean and variance of every channel against what the layers before imply.",
        Clouds((cloud, _variances(channels))),
        "On the diagonal the memory holds nothing that the norms, activations and weights before did not say already. "
        "What is off it was learned from values that are not Gaussian, or not independent.",
    )


def _variances(channels: pd.DataFrame) -> Cloud:
    with np.errstate(invalid="ignore", divide="ignore"):
        remembered = np.log10(of(channels, "running_var"))
        implied = remembered - np.log10(of(channels, "implied_var_ratio"))
    return Cloud(
        "the remembered variance",
        implied,
        remembered,
        "implied if inputs were independent, log₁₀",
        "remembered, log₁₀",
        colour=MEMORY,
    )


def _depth(known: pd.DataFrame) -> Figure:
    r2 = Line(of(known, "implied_mean_r2"), "implied", MEMORY)
    controls = tuple(
        Line(np.maximum(of(known, f"implied_r2_{name}"), LOWEST), label, colour)
        for name, label, colour in CONTROLS
        if known[f"implied_r2_{name}"].notna().any()
    )
    ratio = Line(of(known, "implied_var_ratio_median"), "", INK)
    return Figure(
        "implied by depth",
        "How well remembered means are implied, with controls, and the ratio of remembered to implied variance, by depth.",
        by_depth(
            known,
            (
                Curves(
                    "fit by layer",
                    (*controls, r2),
                    limits=(LOWEST, 1.05),
                    unit="R²",
                ),
                Curves(
                    "remembered variance against that of independent inputs (median channel)",
                    (ratio,),
                    levels=((1.0, "independent"),),
                    logarithmic=True,
                    unit="ratio",
                ),
            ),
        ),
        f"Controls are the same prediction with something taken away; they are drawn no lower than {number(LOWEST, 1)}.",
    )
