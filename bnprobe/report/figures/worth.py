"""A study of ablations for a paper: what vectors are worth by depth, or what each replacement of one vector does."""

from __future__ import annotations

from matplotlib.axes import Axes

from bnprobe.errors import NotDefined
from bnprobe.report.colours import GREEN, MEASURED, MUTED, SAND, VIOLET
from bnprobe.report.figures.axes import names_below
from bnprobe.report.figures.charts import curves
from bnprobe.report.figures.from_tables import of
from bnprobe.report.figures.svg import style
from bnprobe.report.figures.worth_by_depth import NAMES, picture
from bnprobe.report.study_table import StudyTable

COLOURS = {"mean": MEASURED, "var": GREEN, "weight": VIOLET, "bias": SAND}


def plot(study: StudyTable, vector: str | None, ax: Axes | None) -> Axes:
    """See `Study.plot`."""
    there = list(dict.fromkeys(study.table["vector"]))
    if vector not in (None, *there):
        raise NotDefined(f"the study has no vector {vector!r}. It is about {', '.join(there)}.")
    with style("plot worth"):
        axes = _axes(len(study.layers)) if ax is None else ax
        if vector is None:
            _worth(axes, study, there)
        else:
            panel = picture(study, [vector]).panels[0]
            curves(axes, panel)  # type: ignore[arg-type]
            axes.set_title(panel.title, pad=16)
        names_below(axes, study.layers)
        axes.set_xlim(-0.5, len(study.layers) - 0.5)
    return axes


def _axes(n: int) -> Axes:
    import matplotlib.pyplot as plt

    axes: Axes = plt.subplots(figsize=(min(max(4.0, 0.25 * n), 12.0), 3.4))[1]
    return axes


def _worth(axes: Axes, study: StudyTable, vectors: list[str]) -> None:
    """A line per vector with its intervals."""
    layers = study.layers
    for vector in vectors:
        rows = study.worth[study.worth["vector"] == vector].set_index("layer").reindex(layers)
        worth, low, high = (of(rows, column) for column in ("worth", "low", "high"))
        axes.plot(worth, marker="o", markersize=3.5, color=COLOURS[vector], label=NAMES[vector])
        axes.vlines(range(len(layers)), low, high, color=COLOURS[vector], alpha=0.4)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.set_ylabel(f"{study.metric} lost without it")
    axes.set_title("What each vector is worth")
    axes.legend(frameon=False)
