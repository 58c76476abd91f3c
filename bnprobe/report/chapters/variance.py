"""Where the variance lies: between classes, between images of a class, inside an image."""

from __future__ import annotations

import pandas as pd

from bnprobe.measures import Tables
from bnprobe.report.chapters.chapter import NO_DATA, Absent, Material, highest, named
from bnprobe.report.colours import COMPONENTS
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Part, Stack
from bnprobe.report.numbers import count, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE = "Where the variance lies"
SHARES = ("share_class", "share_image", "share_within")


def chapter(material: Material) -> Section | Absent:
    """The sentence, and the shares by depth."""
    if material.recording.weights_only:
        return Absent(TITLE, NO_DATA)
    layers = material.tables.layers
    if not (layers["n_images"] > 1).any():
        return Absent(TITLE, "one image does not differ from itself")
    known = layers.join(_means(material.tables), on=["layer", "call"])
    known = known[known["share_within"].notna() & (known["n_images"] > 1)]
    if known.empty:
        return Absent(TITLE, "no channel varies")
    return Section("variance", TITLE, (Prose((_words(known),)), _figure(known)))


def _means(tables: Tables) -> pd.DataFrame:
    """Mean shares over the channels of a site, which add up to 1 as medians do not."""
    return tables.channels.groupby(["layer", "call"], sort=False)[list(SHARES)].mean()


def _words(known: pd.DataFrame) -> str:
    first, last = known.iloc[0], known.iloc[-1]
    labelled = known[known["share_class"].notna()]
    if labelled.empty:
        return (
            f"Of a channel's variance {share(first['share_within'])} lies inside single images at {named(first)} and "
            f"{share(last['share_within'])} at {named(last)} (mean over channels); the rest tells one image from another. "
            "No labels were given, so classes cannot be told apart."
        )
    most, begins = highest(labelled, "share_class"), labelled.iloc[0]
    there = f"{share(max(most['share_class'], 0.0))} of a channel's variance (mean over channels)"
    against = (
        ""
        if most.name == begins.name
        else f", against {share(max(begins['share_class'], 0.0))} at {named(begins)}"
    )
    return (
        f"Most about the {count(int(most['n_classes']), 'class')} is known at {named(most)}, where differences between "
        f"classes make up {there}{against}; {share(last['share_within'])} at the last norm lies inside single images."
    )


def _figure(known: pd.DataFrame) -> Figure:
    labelled = known["share_class"].notna().any()
    names = {
        "share_class": "between classes",
        "share_image": "between images of a class" if labelled else "between images",
        "share_within": "inside an image",
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
    return Figure(
        "variance",
        "Shares of the variance between classes, between images and inside an image, by depth.",
        by_depth(known, (Stack("parts of a channel's variance (mean over channels)", parts),)),
        "The three parts add up to the whole variance before the norm. What lies between classes is what a channel says "
        "of the label, less what chance alone would show; what lies inside an image is what instance norm would divide by.",
    )
