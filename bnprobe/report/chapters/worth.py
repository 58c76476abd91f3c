"""What each vector of each norm is worth: a study of ablations as a chapter of the report, and as a page of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.report.figures.worth_by_depth import BECOMES, NAMES, picture
from bnprobe.report.numbers import count, number, share, shorten
from bnprobe.report.page.blocks import Block, Cell, Facts, Figure, Headline, Page, Prose, Section, Table
from bnprobe.report.study_table import StudyTable
from bnprobe.version import __version__

TITLE = "What each vector is worth"

MOST_ROWS = 400
"""Rows of a page's table; the study's own has all."""


def chapter(study: StudyTable) -> Section:
    """The answer, the picture by depth, what stages and the network lose, and the whole table, folded."""
    words = Prose((sentence(study), *_whole(study)))
    blocks: tuple[Block, ...] = (words, *_figure(study), _together(study), Facts(_how(study)))
    return Section("worth", TITLE, blocks, parts=(_every(study),), short="Worth")


def page(study: StudyTable) -> Page:
    """The study by itself: the answer and its picture fill the first screen."""
    answer = sentence(study)
    title, _, detail = answer.removesuffix(".").partition(": ")
    first = Headline("plain", title, f"{detail[:1].upper()}{detail[1:]}." if detail else "", answer)
    whole = _whole(study)
    return Page(
        title=f"What the norms of {study.model} are worth",
        lead=f"{count(len(study.layers), 'normalization layer')}, {count(len(study.table), 'replacement')}, tried on "
        f"{count(study.n_samples, 'sample')} in {number(study.seconds, 2)} s.",
        sections=(
            Section("answer", "The answer", (first, *_figure(study)), short="Answer"),
            Section(
                "together",
                "All norms at once",
                (*([Prose(tuple(whole))] if whole else []), _together(study)),
                short="All norms",
            ),
            _every(study),
            Section("how", "How it was measured", (Facts(_how(study)),), short="Method"),
        ),
        footer=f"Made by bnprobe {__version__}. A single self-contained file: works offline and as an attachment.",
    )


def _every(study: StudyTable) -> Section:
    return Section("worth-rows", "Every replacement", (_rows(study.table, study, "Rows"),), folded=True)


def sentence(study: StudyTable) -> str:
    """The first three vectors of single layers, by what the metric loses without them."""
    worth = study.worth
    rows = worth[worth["layer"].isin(study.layers) & ~worth["estimated"]].sort_values(
        "worth", ascending=False, kind="stable"
    )
    n = count(study.n_samples, "sample")
    if rows.empty:
        return f"Nothing was measured of any single layer on {n}: estimates alone rank the vectors."
    first = rows.iloc[0]
    significant = rows[rows["low"] > 0]
    if significant.empty and first["worth"] == 0:
        before = value_of(study, float(study.table["before"].iloc[0]))
        return f"No vector of one layer is worth anything: {study.metric} on {n} without each is no worse than {before}."
    if significant.empty:
        return (
            f"No vector of a single layer is worth anything significant on {n}: {study.metric} changes most without the "
            f"{_name(first)}, by {_signed(study, first)}."
        )
    first, *others = (row for _, row in significant.head(3).iterrows())
    moves = f"{'falls' if study.larger_is_better else 'grows'} from {value_of(study, float(study.table['before'].iloc[0]))}"
    then = " and ".join(f"the {_name(row)} ({_amount(study, row['worth'])})" for row in others)
    return (
        f"Worth most is the {_name(first)}: set to {first['replacement']}, {study.metric} {moves} by "
        f"{_amount(study, first['worth'])} (95% interval {_amount(study, first['low'], unit=False)} to "
        f"{_amount(study, first['high'], unit=False)}, {n})" + (f"; then {then}." if then else ".")
    )


def _whole(study: StudyTable) -> list[str]:
    """What the network does with one vector of all norms permuted, and what else a reader must know."""
    network = study.table[(study.table["level"] == "network") & ~study.table["estimated"]]
    permuted = network[network["replacement"] == "permuted"]
    said = [
        f"{value_of(study, row['after'])} with every {NAMES[row['vector']]} permuted over its channels"
        for _, row in permuted.iterrows()
    ]
    if not said:
        return []
    before = value_of(study, permuted["before"].iloc[0])
    return [
        f"In all norms at once: {study.metric} goes from {before} to {' and to '.join(said)}. A permutation keeps how "
        "the values are distributed and takes away which channel has which."
    ]


def _name(row: pd.Series) -> str:
    return f"{NAMES[row['vector']]} of {shorten(row['layer'], 48)}"


def value_of(study: StudyTable, value: float) -> str:
    """The metric, or a part of it."""
    return share(value) if study.in_percent else number(value)


def _amount(study: StudyTable, value: float, unit: bool = True) -> str:
    if not study.in_percent:
        return number(value)
    return f"{100 * value:.1f}".replace("-", "−") + (" points" if unit else "")


def _signed(study: StudyTable, row: pd.Series) -> str:
    low, high = (_amount(study, row[end], unit=False) for end in ("low", "high"))
    return f"{_amount(study, row['worth'])} (95% interval {low} to {high})"


def _figure(study: StudyTable) -> tuple[Figure, ...]:
    """The picture by depth, where there is any depth."""
    if len(study.layers) < 2:
        return ()
    vectors = list(dict.fromkeys(study.table["vector"]))
    figure = Figure(
        "worth",
        f"{study.metric} by depth, with one vector of one norm replaced, in a panel for each vector.",
        picture(study, vectors),
        f"Each point is the whole model's {study.metric} with one vector of that norm replaced. Orange: the model as it is. "
        "Gaps were not measured.",
    )
    return (figure,)


def _together(study: StudyTable) -> Table:
    rows = study.table[study.table["level"] != "layer"]
    return _rows(rows, study, "The whole network, and its stages: all norms at once")


HEADS = (
    ("layer", "Path of the norm; of a stage its beginning; empty for the whole network."),
    ("vector", "What was replaced."),
    ("becomes", "By what."),
    ("after", "The metric with the replacement."),
    ("difference", "The metric's change."),
    ("95% interval", "Of the difference: paired bootstrap over samples."),
    ("agreement", "Share of decisions that stay."),
    ("KL", "Divergence of the softmax after from the softmax before, in nats."),
    ("n", "Samples; 0 where there was no time, and only the estimate is known."),
    ("estimate", "To first order, the change of a sample's loss: root mean square over samples."),
)


def _rows(table: pd.DataFrame, study: StudyTable, note: str) -> Table:
    shown = table.head(MOST_ROWS)
    estimated = bool(table["estimate"].notna().any())
    rows = [_row(study, row)[: None if estimated else -1] for _, row in shown.iterrows()]
    left = len(table) - len(shown)
    return Table(
        HEADS if estimated else HEADS[:-1],
        tuple(rows),
        f"{note}." + (f" `study.table` has {left:,} more rows." if left else ""),
    )


def _ends(study: StudyTable, row: pd.Series) -> tuple[float, float]:
    """The interval of a difference, as far as it can be: a share of 100% does not rise, and none falls below 0."""
    low, high = float(row["low"]), float(row["high"])
    if not study.in_percent:
        return low, high
    before = float(row["before"])
    return max(low, -before), min(high, 1 - before)


def _row(study: StudyTable, row: pd.Series) -> tuple[Cell, ...]:
    def change(value: float) -> str:
        return number(100 * value, 3) if study.in_percent else number(value)

    low, high = _ends(study, row)
    interval = "–" if np.isnan(low) else f"{change(low)} to {change(high)}"
    return (
        Cell(shorten(row["layer"], 40) or "all norms", number=False),
        Cell(NAMES[row["vector"]], number=False),
        Cell(BECOMES[row["replacement"]], number=False),
        Cell(value_of(study, row["after"])),
        Cell(change(row["difference"])),
        Cell(interval),
        Cell(share(row["agreement"])),
        Cell(number(row["kl"])),
        Cell(f"{row['n']:,}"),
        Cell(number(row["estimate"])),
    )


def _how(study: StudyTable) -> tuple[tuple[str, str], ...]:
    table = study.table
    before = table["before"].iloc[0]
    rows = [("metric", f"{study.metric}, {value_of(study, before)} with the model as it is")]
    rows.append(("differences", "in points" if study.in_percent else "in the metric's unit"))
    n = int(table["estimated"].sum())
    if n:
        rows.append(
            (
                "not measured",
                f"{n:,} of {count(len(table), 'replacement')}: they are estimated to first order",
            )
        )
    if not np.isnan(study.rank_correlation):
        rows.append(
            (
                "estimates",
                f"rank correlation of {number(study.rank_correlation, 2)} with the {study.n_compared:,} that were measured",
            )
        )
    return (*rows, *(("note", note) for note in study.notes))
