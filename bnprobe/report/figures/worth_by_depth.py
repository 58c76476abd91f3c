"""The metric by depth with one vector of one norm replaced: what the page and a plot of a study draw."""

from __future__ import annotations

import pandas as pd

from bnprobe.report.colours import GREEN, MEASURED, ROSE, SAND, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import ByDepth, Curves, Line
from bnprobe.report.study_table import StudyTable

NAMES = {
    "mean": "running mean",
    "var": "running variance",
    "scale": "scale of each token",
    "centering": "centering",
    "weight": "weight γ",
    "bias": "bias β",
}

BECOMES = {
    "data": "what the data give",
    "0": "0",
    "1": "1",
    "mean": "the mean over channels",
    "implied": "what previous layers imply",
    "permuted": "channels permuted",
    "unsigned": "signs dropped",
    "initial": "as at initialization",
    "constant": "one constant",
    "two": "one for the first token, one for the others",
    "position": "one per position",
    "loud": "one constant, loud tokens apart",
    "removed": "removed: an RMS norm",
    "added": "added: a layer norm",
}

COLOURS = {
    "data": GREEN,
    "0": ROSE,
    "1": ROSE,
    "mean": SAND,
    "implied": VIOLET,
    "permuted": MEASURED,
    "unsigned": GREEN,
    "initial": VIOLET,
    "constant": ROSE,
    "two": MEASURED,
    "position": GREEN,
    "loud": VIOLET,
    "removed": ROSE,
    "added": GREEN,
}
"""The control, the permutation, has the color of what is measured; no vector has two replacements of one color."""


HIGHEST = 1.01
"""Where axes of shares end: no share is larger than 1, and a point there is whole."""


def picture(study: StudyTable, vectors: list[str]) -> ByDepth:
    """The metric by depth, a panel for each vector and a line for each replacement."""
    layers = pd.DataFrame({"layer": study.layers, "call": 0})
    return by_depth(layers, tuple(_panel(study, vector) for vector in vectors))


def _panel(study: StudyTable, vector: str) -> Curves:
    rows = study.table[(study.table["vector"] == vector) & (study.table["level"] == "layer")]
    lines = []
    for replacement in dict.fromkeys(rows["replacement"]):
        values = rows[rows["replacement"] == replacement].set_index("layer")["after"]
        lines.append(
            Line(
                of(values.reindex(study.layers).to_frame(), "after"),
                BECOMES[replacement],
                COLOURS[replacement],
            )
        )
    before = float(rows["before"].iloc[0]) if len(rows) else float("nan")
    return Curves(
        f"{study.metric} with the {NAMES[vector]} replaced",
        tuple(lines),
        limits=(None, HIGHEST if study.in_percent else None),
        expected=before,
    )
