"""Statistics of every sample anew: what layer, instance, group and RMS norm divide by, and what they leave in."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.recording.terms import OUTLIER
from bnprobe.report.chapters.chapter import Absent, Material, highest, named, norms
from bnprobe.report.colours import GREEN, ROSE, SEEN, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line, Panel
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import table

TITLE = "Norms that measure each sample anew"
HEADS = ["layer", "own_sd", "own_log_var_sd", "mean_energy", "outliers", "outlier_channels", "rms_ratio_max"]
MOST_ROWS = 8


def chapter(material: Material) -> Section | Absent:
    """The sentence, their statistics by depth, and the layers with outlier dimensions."""
    layers = material.tables.layers
    known = layers[layers["own_sd"].notna()]
    if known.empty:
        return Absent(TITLE, "no norm was seen that measures samples itself")
    outlying = known[known["outliers"] > 0].sort_values("rms_ratio_max", ascending=False, kind="stable")
    note = f"Norms with a channel more than {OUTLIER:g} times as large as the typical one."
    rows = [table(outlying.head(MOST_ROWS), HEADS, note)] if len(outlying) else []
    figure = [_figure(known)] if len(known) > 1 else []
    return Section("own", TITLE, (Prose((_words(known), _outliers(known))), *figure, *rows))


def _words(known: pd.DataFrame) -> str:
    first, last = known.iloc[0], known.iloc[-1]
    if len(known) == 1:
        return (
            f"{named(first)} divides each sample by its own deviation, typically {number(first['own_sd'], 2)}; "
            f"{share(first['mean_energy'])} of what it is given lies in the mean."
        )
    energy = highest(known, "mean_energy") if known["mean_energy"].notna().any() else first
    return (
        f"{norms(len(known)).capitalize()} divide each sample by its own deviation, which goes from "
        f"{number(first['own_sd'], 2)} at {named(first)} to {number(last['own_sd'], 2)} at {named(last)}; at most "
        f"{share(energy['mean_energy'])} of what they are given lies in the mean (at {named(energy)}), which RMS norm "
        f"would leave in."
    )


def _outliers(known: pd.DataFrame) -> str:
    there = known[known["outliers"] > 0]
    if there.empty:
        return f"No channel is {OUTLIER:g} times as large as the typical one of its layer."
    worst = highest(there, "rms_ratio_max")
    return (
        f"{count(int(there['outliers'].sum()), 'channel')} in {norms(len(there))} "
        f"{'are' if there['outliers'].sum() > 1 else 'is'} more than {OUTLIER:g} times as large as the typical one, up to "
        f"{number(worst['rms_ratio_max'], 2)} times at {named(worst)}; the others share a divisor with them."
    )


def _figure(known: pd.DataFrame) -> Figure:
    panels: list[Panel] = [
        Curves(
            "deviation that the norm divides by (typical sample)",
            (Line(of(known, "own_sd"), "", SEEN),),
            logarithmic=True,
            unit="input",
        ),
        Curves(
            "how much it varies from sample to sample",
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
                "largest channel against the typical one",
                (Line(of(known, "rms_ratio_max"), "", ROSE),),
                levels=((OUTLIER, "outlier"),),
                logarithmic=True,
                unit="ratio",
            )
        )
    return Figure(
        "own",
        "What norms without memory divide by, how it varies, the energy in the mean and the largest channel, by depth.",
        by_depth(known, tuple(panels)),
        "Layer, group, instance and RMS norm measure every sample anew. A channel far larger than the others decides the "
        "divisor of all; energy in the mean is what layer norm takes out and RMS norm leaves in.",
    )
