"""What was already implied: how much of the running means follows from the previous layers, and what is new."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Fit, pooled
from bnprobe.measures.shape import median
from bnprobe.report.chapters.chapter import Absent, Material, norms
from bnprobe.report.colours import EXPECTED, GREEN, INK, MUTED, ROSE, VIOLET
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
SAME = 1.05
"""Factor below which a variance counts as that of independent inputs."""
LOWEST = -0.2
"""R² below which a control is drawn no deeper: worse than the average is bad enough."""


def chapter(material: Material) -> Section | Absent:
    """The sentence, implied against stored, and the fit with its controls by depth."""
    fit = pooled(material.recording.layers)
    if not fit.n_channels:
        return Absent(
            TITLE, "no norm with running statistics has previous norms and weights that could be followed"
        )
    if np.isnan(fit.r2):
        return Absent(TITLE, "all running means are equal, as if nothing was learned")
    known = material.tables.layers[material.tables.layers["implied_mean_r2"].notna()]
    figures = (_clouds(material.tables.channels), *([_depth(known)] if len(known) > 1 else []))
    return Section("implied", TITLE, (Prose((words(fit), *_variance(known))), *figures))


def words(fit: Fit) -> str:
    """How much of the running means the previous layers imply, and what the controls make of it."""
    # without a negative γ, or a border, that control is the fit itself
    other = [name for name in _CONTROLS if abs(fit.controls[name] - fit.r2) > 1e-9]
    controls = ", ".join(f"{number(fit.controls[name], 2)} with {_CONTROLS[name]}" for name in other)
    means = f"the running means of {norms(fit.n_layers)}"
    if any(_does_as_well(fit, name) for name in other):
        return (
            f"It is unclear how much of {means} follows from the previous norms and weights: the prediction has R² "
            f"{number(fit.r2, 3)} over {count(fit.n_channels, 'channel')}, but controls that should do worse reach "
            f"{controls}."
        )
    worse = f" Controls do worse, as they should: R² {controls}." if controls else ""
    part = share(max(fit.r2, 0.0))
    return (
        f"{part[0].upper()}{part[1:]} of the variation in {means} follows from the previous norms and weights (R² "
        f"{number(fit.r2, 3)}, typically off by {number(fit.rmse, 2)} running standard deviations, over "
        f"{count(fit.n_channels, 'channel')}).{worse}"
    )


def _does_as_well(fit: Fit, name: str) -> bool:
    """Whether a control takes the claim away; one that ignores which channel is which must be clearly worse."""
    margin = CLEARLY if name in ("permuted", "constant") else 0.0
    return fit.controls[name] >= fit.r2 - margin


_CONTROLS = {
    "permuted": "the previous channels permuted",
    "constant": "all of them at their mean",
    "signed": "γ for |γ|",
    "unpadded": "borders treated as interior",
}


def _variance(known: pd.DataFrame) -> list[str]:
    ratio = median(of(known, "implied_var_ratio_median")) if len(known) else np.nan
    if np.isnan(ratio):
        return []
    gives = "what independent inputs would give"
    if max(ratio, 1 / ratio) < SAME:
        return [f"The running variance is typically about {gives}."]
    return [
        f"The running variance is typically {number(ratio, 2)} times {gives}, because channels and neighboring "
        "positions vary together."
    ]


def _clouds(channels: pd.DataFrame) -> Figure:
    with np.errstate(invalid="ignore", divide="ignore"):
        mean, gap = of(channels, "running_mean"), of(channels, "implied_gap")
        sigma = np.where(gap != 0, (mean - of(channels, "implied_mean")) / gap, np.nan)
        stored = mean / sigma
    cloud = Cloud(
        "running mean of every channel",
        stored - gap,
        stored,
        "implied by the previous layers, in running σ",
        "stored, in running σ",
        colour=EXPECTED,
    )
    return Figure(
        "implied",
        "Running mean and variance of every channel against what the previous layers imply.",
        Clouds((cloud, _variances(channels))),
        "On the diagonal, the running mean follows from the previous layers: it adds nothing new about the data. "
        "Channels off the diagonal have inputs that are not Gaussian, or not independent.",
    )


def _variances(channels: pd.DataFrame) -> Cloud:
    with np.errstate(invalid="ignore", divide="ignore"):
        stored = np.log10(of(channels, "running_var"))
        implied = stored - np.log10(of(channels, "implied_var_ratio"))
    return Cloud(
        "running variance",
        implied,
        stored,
        "implied if inputs were independent, log₁₀",
        "stored, log₁₀",
        colour=EXPECTED,
    )


def _depth(known: pd.DataFrame) -> Figure:
    r2 = Line(of(known, "implied_mean_r2"), "implied", EXPECTED)
    controls = tuple(
        Line(np.maximum(of(known, f"implied_r2_{name}"), LOWEST), label, colour)
        for name, label, colour in CONTROLS
        if known[f"implied_r2_{name}"].notna().any()
    )
    ratio = Line(of(known, "implied_var_ratio_median"), "", INK)
    return Figure(
        "implied by depth",
        "How well running means are implied, with controls, and the ratio of running to implied variance, by depth.",
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
                    "running variance relative to that of independent inputs (median channel)",
                    (ratio,),
                    levels=((1.0, "independent"),),
                    logarithmic=True,
                    unit="ratio",
                ),
            ),
        ),
        f"Controls are the same prediction with something taken away; values below {number(LOWEST, 1)} are drawn there.",
    )
