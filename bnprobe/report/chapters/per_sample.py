"""Per-sample norms: what layer, instance, group and RMS norm divide by, and what they leave in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures.shape import median
from bnprobe.recording.terms import OUTLIER
from bnprobe.report.chapters.chapter import Absent, Material, highest, named, norms, opening
from bnprobe.report.colours import GREEN, MEASURED, ROSE, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line, Panel
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import of_all, table

TITLE = "Per-sample norms"
HEADS = ["layer", "own_sd", "own_log_var_sd", "mean_energy", "outliers", "outlier_channels", "rms_ratio_max"]
MOST_ROWS = 8


def chapter(material: Material) -> Section | Absent:
    """The sentence, their statistics by depth, and the layers with outlier dimensions."""
    scale = own_scale(material.tables.layers)
    if not scale:
        return Absent(TITLE, "no norm uses each sample's own statistics")
    known = scale.known
    outlying = known[known["outliers"] > 0].sort_values("rms_ratio_max", ascending=False, kind="stable")
    note = (
        f"Norms with a channel more than {OUTLIER:g} times as large as the typical one"
        f"{of_all(outlying, MOST_ROWS, ', the largest first')}."
    )
    rows = [table(outlying.head(MOST_ROWS), HEADS, note)] if len(outlying) else []
    figure = [_figure(known)] if len(known) > 1 else []
    return Section(
        "per-sample", TITLE, (Prose((_words(scale), _outliers(known))), *figure, *rows), short="Per sample"
    )


@dataclass(frozen=True)
class OwnScale:
    """What norms divide by that use each sample's own statistics: their rows of the table of layers, at least one."""

    known: pd.DataFrame

    @property
    def n(self) -> int:
        """How many norms."""
        return len(self.known)

    @property
    def ends(self) -> tuple[float, float]:
        """Typical scale at the first and at the last of them, in units of their inputs."""
        return float(self.known["own_sd"].iloc[0]), float(self.known["own_sd"].iloc[-1])

    @property
    def course(self) -> str:
        """From where to where it goes."""
        low, high = (number(end, 2) for end in self.ends)
        return f"goes from {low} at {named(self.known.iloc[0])} to {high} at {named(self.known.iloc[-1])}"

    def varies(self, unit: str) -> str:
        """By how much it differs from sample to sample at a typical norm; empty where that is nothing, or no small part."""
        # half the log of the variance is the log of the scale
        spread = median(self.known["own_log_var_sd"].to_numpy()) / 2
        return f"by about {share(spread)} between {unit}s" if 0 < spread < 0.5 else ""


def own_scale(layers: pd.DataFrame) -> OwnScale | None:
    """Of the table of layers; None without such norms."""
    known = layers[layers["own_sd"].notna()]
    return None if known.empty else OwnScale(known)


def _words(scale: OwnScale) -> str:
    known, first = scale.known, scale.known.iloc[0]
    if scale.n == 1:
        text = (
            f"{opening(first)} divides each sample by its own scale, typically {number(first['own_sd'], 2)}."
        )
        return (
            f"{text} Of the energy of its inputs, {share(first['mean_energy'])} is in the mean."
            if _known(first)
            else text
        )
    text = f"{norms(scale.n).capitalize()} divide each sample by its own scale, which {scale.course}."
    if not known["mean_energy"].notna().any():
        return text
    energy = highest(known, "mean_energy")
    return (
        f"{text} At most {share(energy['mean_energy'])} of the energy of their inputs is in the mean "
        f"({named(energy)}), which layer norm removes and RMS norm keeps."
    )


def _known(row: pd.Series) -> bool:
    return bool(np.isfinite(row["mean_energy"]))


def _outliers(known: pd.DataFrame) -> str:
    there = known[known["outliers"] > 0]
    if there.empty:
        return f"No channel is more than {OUTLIER:g} times as large as its layer's typical one."
    worst, n = highest(there, "rms_ratio_max"), int(there["outliers"].sum())
    return (
        f"{count(n, 'channel')} in {norms(len(there))} {'are' if n > 1 else 'is'} more than {OUTLIER:g} times as large "
        f"as the typical one, up to {number(worst['rms_ratio_max'], 2)} times at {named(worst)}; all channels of a "
        "layer share one divisor with them."
    )


def _figure(known: pd.DataFrame) -> Figure:
    panels: list[Panel] = [
        Curves(
            "scale that the norm divides by (typical sample)",
            (Line(of(known, "own_sd"), "", MEASURED),),
            logarithmic=True,
            unit="of the input",
        ),
        Curves(
            "spread of the scale between samples",
            # half the log of the variance is the log of the deviation
            (Line(of(known, "own_log_var_sd") / 2, "", VIOLET),),
            limits=(0, None),
            unit="log",
        ),
        Curves(
            "share of the inputs' energy in the mean",
            (Line(of(known, "mean_energy"), "", GREEN),),
            limits=(0, 1),
            unit="share",
        ),
    ]
    if np.isfinite(of(known, "rms_ratio_max")).any():
        panels.append(
            Curves(
                "largest channel relative to the typical one",
                (Line(of(known, "rms_ratio_max"), "", ROSE),),
                levels=((OUTLIER, "outlier"),),
                logarithmic=True,
                unit="ratio",
            )
        )
    return Figure(
        "per sample",
        "Scale that norms without running statistics divide by, its spread, the energy in the mean and the largest channel.",
        by_depth(known, tuple(panels)),
        "Layer, group, instance and RMS norm compute statistics for every sample separately. A channel far larger than the "
        "others decides the divisor of all. Layer norm removes the energy in the mean, RMS norm keeps it.",
    )
