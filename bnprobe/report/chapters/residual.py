"""Residual branches: how much of a block's output is its own, and how much it was at initialization."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.report.chapters.chapter import Absent, Material, highest, lowest, named
from bnprobe.report.colours import EXPECTED, MUTED
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import table

TITLE = "Residual branches"
HEADS = ["layer", "skip", "branch_var", "skip_var", "branch_share", "branch_share_initial"]
MOST_ROWS = 24


def chapter(material: Material) -> Section | Absent:
    """The sentence, the share of the branch by depth, and the blocks."""
    known = _blocks(material.tables.layers[material.tables.layers["branch_share"].notna()])
    if known.empty:
        return Absent(TITLE, "no norm feeds a sum whose other side could be traced to norms")
    heads = [head for head in HEADS if known[head].notna().any()]
    note = "" if len(known) <= MOST_ROWS else f"The first {MOST_ROWS} of {count(len(known), 'block')}."
    rows = table(known.head(MOST_ROWS), heads, note)
    figure = [_figure(known)] if len(known) > 1 else []
    return Section("residual", TITLE, (Prose((_words(known),)), *figure, rows), short="Residual")


def _blocks(known: pd.DataFrame) -> pd.DataFrame:
    """One row per sum: where both its sides are norms, one of them is the skip, and leaves the table.

    It is the one whose output goes elsewhere too: into the branch, as between the bottlenecks of mobilenet_v2, where
    the norm that ends a block is the next block's skip. Where that holds of neither, it is the one that was reached
    last: a projection in the skip is computed after the branch in every network that was looked at.
    """
    rows = {row["layer"]: (place, row) for place, (_, row) in enumerate(known.iterrows())}

    def is_skip(row: pd.Series) -> bool:
        other = rows.get(row["skip"])
        if other is None or other[1]["skip"] != row["layer"]:
            return False
        forks, other_forks = _goes_several_ways(row), _goes_several_ways(other[1])
        return forks if forks != other_forks else other[0] < rows[row["layer"]][0]

    return known[[not is_skip(row) for _, row in known.iterrows()]]


def _goes_several_ways(row: pd.Series) -> bool:
    """Whether the output enters more than the sum."""
    return " | " in row["follows"]


def _words(known: pd.DataFrame) -> str:
    loud, quiet = highest(known, "branch_share"), lowest(known, "branch_share")
    at_first = known["branch_share_initial"].notna().any()
    if len(known) == 1:
        one = f"At {named(loud)} the residual branch contributes {share(loud['branch_share'])} of the block's variance"
        return (
            f"{one}; at initialization it was {share(loud['branch_share_initial'])}."
            if at_first
            else f"{one}."
        )
    now = (
        f"In {count(len(known), 'residual block')} the branch contributes {share(quiet['branch_share'])} to "
        f"{share(loud['branch_share'])} of the block's variance, most at {named(loud)}."
    )
    if not at_first:
        return now
    grown = int((known["branch_share"] > known["branch_share_initial"]).sum())
    larger = f"In {grown} of them its share is larger" if grown else "In none of them is its share larger"
    ends = [share(float(end(of(known, "branch_share_initial")))) for end in (np.nanmin, np.nanmax)]
    initially = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    return f"{now} {larger} than at initialization ({initially})."


def _figure(known: pd.DataFrame) -> Figure:
    initial = float(known["branch_share_initial"].iloc[0])
    at_first = [Line(of(known, "branch_share_initial"), "at initialization", MUTED, dashed=True)]
    at_first *= bool(known["branch_share_initial"].notna().any())
    panel = Curves(
        "share of the branch in the block's variance",
        (*at_first, Line(of(known, "branch_share"), "now", EXPECTED)),
        limits=(0, 1),
        levels=((0.5, "equal"),),
        unit="share",
    )
    return Figure(
        "residual",
        f"Share of the branch in the variance of {count(len(known), 'residual block')}, "
        f"{'now and at initialization' if at_first else 'now'}, by depth.",
        by_depth(known, (panel,)),
        "Last norm of each branch. The share follows from γ, β and the norms that feed the skip, or was measured in the "
        "first pass where a layer scale ends the branch"
        + (
            "."
            if np.isnan(initial)
            else f"; at initialization γ is 1 and β is 0, which gives {number(initial, 2)} for the first of these blocks."
        ),
    )
