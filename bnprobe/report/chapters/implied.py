"""What earlier layers already determine: how much of the running means follows from the previous layers, and what is new."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures.shape import median
from bnprobe.report.chapters.chapter import Absent, Material, named, norms
from bnprobe.report.colours import EXPECTED, GREEN, INK, MUTED, ROSE, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Cloud, Clouds, Curves, Line
from bnprobe.report.numbers import number, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE = "What earlier layers already determine"

CONTROLS = (
    ("permuted", "channels permuted", VIOLET),
    ("constant", "all at their mean", MUTED),
    ("signed", "γ for |γ|", GREEN),
    ("unpadded", "borders ignored", ROSE),
)
CLEARLY = 0.01
"""R² by which the prediction must beat controls that ignore which channel is which, or it says nothing of them."""
BLIND = ("permuted", "constant")
"""Controls that ignore which channel is which."""
NEARLY = 0.1
"""R² within which such a control comes close, so that knowing the channels adds little."""
FITS = 0.5
"""R² below which the running means of a norm do not follow from the previous layers."""
MOST_NAMED = 3
"""Norms that do not fit and are named one by one."""
SAME = 1.05
"""Factor below which a variance counts as that of independent inputs."""
LOWEST = -0.2
"""R² below which nothing is drawn any deeper: worse than the average is bad enough."""


def chapter(material: Material) -> Section | Absent:
    """The sentence, implied against stored, and the fit with its controls by depth."""
    layers = material.tables.layers
    if layers["implied_mean_rmse"].isna().all():
        return Absent(
            TITLE, "no norm with running statistics has previous norms and weights that could be followed"
        )
    known = layers[layers["implied_mean_r2"].notna()]
    if known.empty:
        return Absent(TITLE, "all running means are equal, as if nothing was learned")
    figures = (_clouds(material.tables.channels), *([_depth(known)] if len(known) > 1 else []))
    return Section(
        "implied", TITLE, (Prose((words(known), *_variance(known))), *figures), short="Earlier layers"
    )


@dataclass(frozen=True)
class Fit:
    """R² of a typical norm's running means (1 is perfect), and of the controls that are other predictions, by their name."""

    typical: float
    controls: dict[str, float]

    @property
    def in_doubt(self) -> bool:
        """Whether a control that should do worse does as well."""
        return any(_does_as_well(self.typical, name, value) for name, value in self.controls.items())

    @property
    def in_reach(self) -> bool:
        """Whether what ignores which channel is which explains nearly as much."""
        blind = [self.controls[name] for name in BLIND if name in self.controls]
        return bool(blind) and max(blind) > self.typical - NEARLY


def fit(layers: pd.DataFrame) -> Fit | None:
    """How well the previous layers predict the running means; None where that is known of no norm."""
    known = layers[layers["implied_mean_r2"].notna()]
    return None if known.empty else _fit(known)


def _fit(known: pd.DataFrame) -> Fit:
    controls = {name: median(of(known, f"implied_r2_{name}")) for name in _CONTROLS if _differs(known, name)}
    return Fit(median(of(known, "implied_mean_r2")), controls)


def words(known: pd.DataFrame) -> str:
    """How much of a typical norm's running means the previous layers imply, where they do not, and the controls.

    Norms are not pooled: one whose running σ is tiny would decide the sum of all squares.
    """
    found = _fit(known)
    n, typical = len(known), found.typical
    listed = ", ".join(f"{number(value, 3)} with {_CONTROLS[name]}" for name, value in found.controls.items())
    each, middle = ("a typical norm's running means", "median ") if n > 1 else ("the running means", "")
    over = norms(n) if n > 1 else named(known.iloc[0])
    if found.in_doubt:
        return (
            f"It is unclear how much of {each} follows from the previous norms and weights: the prediction has a "
            f"{middle}R² of {number(typical, 3)} ({over}), but controls that should do worse reach {listed}."
        )
    part, error = share(max(typical, 0.0)), float(known["implied_r2_se"].iloc[0])
    within = f" ± {number(2 * error, 2)}" if n == 1 and np.isfinite(error) else ""
    how = "come close" if found.in_reach else "do worse, as they should"
    worse = f" Controls {how}: {middle}R² {listed}." if found.controls else ""
    return (
        f"{part[0].upper()}{part[1:]} of the variation in {each} follows from the previous norms and weights ({middle}R² "
        f"{number(typical, 3)}{within}, {over}).{_exceptions(known)}{worse}{_skill(known)}"
    )


def _skill(known: pd.DataFrame) -> str:
    """What knowing the channels is worth beside their common mean, to which R² owes a part."""
    skill = median(of(known, "implied_skill"))
    if not 0 < skill < 1:
        return ""
    return f" The prediction's squared error is {share(skill)} below that of the control with all channels at their mean."


def _exceptions(known: pd.DataFrame) -> str:
    """The norms whose running means the previous layers do not give, and by how much they miss."""
    far = known[known["implied_mean_r2"] < FITS]
    if far.empty or len(known) == 1:
        return ""
    worst = far.iloc[int(np.argmin(of(far, "implied_mean_r2")))]
    off = f"{number(worst['implied_mean_rmse'], 2)} running standard deviations"
    if len(far) > MOST_NAMED:
        return f" At {norms(len(far))} it does not, least at {named(worst)}, where the prediction misses by {off}."
    if len(far) == 1:
        return f" At {named(worst)} it does not: the prediction misses by {off}."
    *first, last = (named(row) for _, row in far.iterrows())
    where = f"At {', '.join(first)} and {last} it does not, least at {named(worst)}"
    return f" {where}, where the prediction misses by {off}."


def _differs(known: pd.DataFrame, name: str) -> bool:
    """Whether a control is another prediction: without a negative γ, or a border, that one is the fit itself."""
    return bool((np.abs(of(known, f"implied_r2_{name}") - of(known, "implied_mean_r2")) > 1e-9).any())


def _does_as_well(r2: float, name: str, control: float) -> bool:
    """Whether a control takes the claim away; one that ignores which channel is which must be clearly worse."""
    margin = CLEARLY if name in BLIND else 0.0
    return control >= r2 - margin


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
    r2 = Line(np.maximum(of(known, "implied_mean_r2"), LOWEST), "implied", EXPECTED)
    controls = tuple(
        Line(np.maximum(of(known, f"implied_r2_{name}"), LOWEST), label, colour)
        for name, label, colour in CONTROLS
        if _differs(known, name)
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
        f"Controls are the same prediction with something taken away. Values below {number(LOWEST, 1)} are drawn there.",
    )
