"""Where the variance lies: between classes, between samples of a class, within a sample."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bnprobe.measures import Tables
from bnprobe.report.chapters.chapter import NO_DATA, Absent, Material, highest, named, unit_of
from bnprobe.report.colours import COMPONENTS
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Part, Stack
from bnprobe.report.numbers import count, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE, BY_CLASS = "Where the variance lies", "Where is the class information?"
"""Without labels, and with them."""
SHARES = ("share_class", "share_image", "share_within")


def chapter(material: Material) -> Section | Absent:
    """The sentence, and the shares by depth."""
    if material.recording.weights_only:
        return Absent(TITLE, NO_DATA)
    unit = unit_of(material.recording)
    if not (material.tables.layers["n_images"] > 1).any():
        return Absent(TITLE, f"one {unit} alone has no others to differ from")
    known = shares(material.tables)
    if known.empty:
        return Absent(TITLE, "no channel varies")
    title = BY_CLASS if by_class(known) else TITLE
    return Section("variance", title, (Prose((_words(known, unit),)), _figure(known, unit)), short="Variance")


@dataclass(frozen=True)
class ByClass:
    """What the classes explain of a channel's variance: the first norm where that is known, and the one with most of it.

    `n` counts the norms where it is known.
    """

    n: int
    first: pd.Series
    most: pd.Series

    @property
    def classes(self) -> str:
        """How many there are, in words."""
        return count(int(self.most["n_classes"]), "class")

    @property
    def rises(self) -> bool:
        """Whether the first norm is not the one with most."""
        return self.most.name != self.first.name

    @property
    def at_first(self) -> str:
        """The share at the first norm, in words; an estimate below 0 is none."""
        return share(max(float(self.first["share_class"]), 0.0))

    @property
    def at_most(self) -> str:
        """The largest share, in words."""
        return share(max(float(self.most["share_class"]), 0.0))


def shares(tables: Tables) -> pd.DataFrame:
    """The layers of which the components are known, with the mean shares of their channels: these add up to 1."""
    means = tables.channels.groupby(["layer", "call"], sort=False)[list(SHARES)].mean()
    layers = tables.layers.join(means, on=["layer", "call"])
    return layers[layers["share_within"].notna() & (layers["n_images"] > 1)]


def by_class(known: pd.DataFrame) -> ByClass | None:
    """Of the layers that `shares` gives; None where no labels tell classes apart."""
    labelled = known[known["share_class"].notna()]
    if labelled.empty:
        return None
    return ByClass(len(labelled), labelled.iloc[0], highest(labelled, "share_class"))


def _words(known: pd.DataFrame, unit: str) -> str:
    found = by_class(known)
    if not found:
        return f"{_within(known, unit)} {_no_classes(known, unit)}"
    explain = f"Differences between the {found.classes} explain"
    of_it, mean, most = "of a channel's variance", "(mean over channels)", named(found.most)
    if found.rises:
        text = f"{explain} {found.at_first} {of_it} at {named(found.first)} and {found.at_most} at {most} {mean}."
    elif found.n > 1:
        text = f"{explain} most at {most}: {found.at_most} {of_it} {mean}, and no more at any later norm."
    else:
        text = f"{explain} {found.at_most} {of_it} at {most} {mean}."
    return f"{text} At the last norm, {share(known['share_within'].iloc[-1])} of the variance lies within single {unit}s."


def _no_classes(known: pd.DataFrame, unit: str) -> str:
    """Why classes are not separated."""
    n = int(known["n_classes"].fillna(0).max())
    if not n:
        return "No labels were given, so classes are not separated."
    if n == 1:
        return f"All {unit}s with a label are of one class, so there are no classes to compare."
    return f"Between classes was not measured: that takes two {unit}s of a class, and no class has them."


def _within(known: pd.DataFrame, unit: str) -> str:
    first, last = known.iloc[0], known.iloc[-1]
    if len(known) == 1:
        return (
            f"At {named(first)}, {share(first['share_within'])} of a channel's variance lies within single {unit}s "
            f"(mean over channels); the rest distinguishes one {unit} from another."
        )
    at_first, at_last = share(first["share_within"]), share(last["share_within"])
    course = (
        f"is {at_first} at the first norm and at the last"
        if at_first == at_last
        else f"goes from {at_first} at the first norm to {at_last} at the last"
    )
    return (
        f"The share of a channel's variance that lies within single {unit}s {course} (mean over channels); the rest "
        f"distinguishes one {unit} from another."
    )


def _figure(known: pd.DataFrame, unit: str) -> Figure:
    labelled = known["share_class"].notna().any()
    names = {
        "share_class": "between classes",
        "share_image": f"between {unit}s of a class" if labelled else f"between {unit}s",
        "share_within": f"within {_an(unit)}",
    }
    parts = tuple(
        Part(
            of(known, column).clip(0),
            names[column],
            COMPONENTS[column.removeprefix("share_")],
            column == "share_within",
        )
        for column in SHARES
        if known[column].notna().any()
    )
    between = " What lies between classes is what a channel says about the label, minus what chance alone would give."
    return Figure(
        "variance",
        f"Shares of the variance {'between classes, ' * bool(labelled)}between {unit}s and within {_an(unit)}, by depth.",
        by_depth(known, (Stack("parts of a channel's variance (mean over channels)", parts),)),
        f"The parts add up to the whole variance before the norm.{between if labelled else ''} What lies within {_an(unit)} "
        "is what instance norm divides by.",
    )


def _an(unit: str) -> str:
    return f"{'an' if unit[0] in 'aeiou' else 'a'} {unit}"
