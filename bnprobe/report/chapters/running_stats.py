"""Memory against data: whether the inputs look like what the norms remember, where a shift enters and heals."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures.shape import median
from bnprobe.measures.shift_by_depth import Course, course
from bnprobe.measures.verdict import ENOUGH
from bnprobe.recording.names import NEVER_UPDATED, NOT_JUDGED, SHIFTED, TOO_FEW
from bnprobe.report.chapters.chapter import NO_DATA, Absent, Material, named, norms
from bnprobe.report.colours import INK, SEEN, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import table

TITLE = "Memory against data"
HEADS = [
    "layer",
    "verdict",
    "mean_moved",
    "scale_moved",
    "shift_rms",
    "var_ratio_median",
    "kl_median",
    "w2_rms",
]
MOST_ROWS = 8


def chapter(material: Material) -> Section | Absent:
    """The sentence, distances by depth, and the layers that shifted most."""
    layers = material.tables.layers
    if material.recording.weights_only:
        return Absent(TITLE, NO_DATA)
    known = layers[~layers["verdict"].isin(NOT_JUDGED)]
    if known.empty:
        return Absent(TITLE, _nothing_known(layers))
    found = course(known)
    shifted = known[known["verdict"].isin(SHIFTED)].sort_values("w2_rms", ascending=False, kind="stable")
    note = "The norms that moved most." if len(shifted) > MOST_ROWS else "The norms that moved."
    rows = [table(shifted.head(MOST_ROWS), HEADS, note)] if len(shifted) else []
    return Section("memory", TITLE, (Prose((_words(known, found),)), _figure(known, found), *rows))


def _nothing_known(layers: pd.DataFrame) -> str:
    fresh = layers[layers["verdict"] == NEVER_UPDATED]
    if fresh.empty:
        return "no norm keeps running statistics"
    before = " before the recording" if (fresh["memory_moved"] > 0).any() else ""
    return f"the running statistics were never updated{before}"


def _words(known: pd.DataFrame, found: Course) -> str:
    few = int((known["verdict"] == TOO_FEW).sum())
    images = count(int(known["n_images"].max()), "image")
    if not found.n_judged:
        return f"{images} are too few to tell at any of {norms(len(known))} whether the data look like what it remembers."
    rest = f"; at {few} more, {images} are too few to tell" if few else ""
    if found.opens is None:
        mean, ratio = median(of(known, "shift_rms")), median(of(known, "var_ratio_median"))
        return (
            f"The data look like what the norms remember at all {found.n_judged} that could be judged: typically the mean "
            f"lies {number(mean, 2)} remembered deviations off and the variance is {number(ratio, 2)} times the "
            f"remembered one{rest}."
        )
    return f"{_shift_words(known, found)}{rest}."


def _shift_words(known: pd.DataFrame, found: Course) -> str:
    assert found.opens is not None
    assert found.worst is not None
    worst = known.iloc[found.worst]
    ratio = median(of(known[known["verdict"].isin(SHIFTED)], "var_ratio_median"))
    size = f"({number(worst['w2_rms'], 2)} remembered deviations, mean and scale together)"
    if found.n_shifted == 1:
        where = f"the difference is at {named(worst)} alone {size}"
    elif found.opens == found.worst:
        where = f"the difference enters at {named(worst)}, where it is largest {size}"
    else:
        where = (
            f"the difference enters at {named(known.iloc[found.opens])}, is largest at {named(worst)} {size}"
        )
    healed = (
        f"and has healed by {named(known.iloc[found.healed])}"
        if found.healed is not None
        else "and is still there at the last norm that could be judged"
    )
    return (
        f"At {found.n_shifted} of {found.n_judged} norms the data do not look like what was remembered, with typically "
        f"{share(ratio)} of the remembered variance there; {where}, {healed}"
    )


def _figure(known: pd.DataFrame, found: Course) -> Figure:
    scale = np.sqrt(np.clip(of(known, "w2_rms") ** 2 - of(known, "shift_rms") ** 2, 0, None))
    marks = {found.opens: "enters", found.worst: "largest", found.healed: "healed"}
    if found.opens is not None and found.opens == found.worst:
        marks[found.opens] = "enters, largest"
    distance = Curves(
        "distance of what is seen from what is remembered (root mean square)",
        (
            Line(of(known, "w2_rms"), "both", INK),
            Line(of(known, "shift_rms"), "mean", SEEN),
            Line(scale, "scale", VIOLET),
        ),
        marks=tuple((at, words) for at, words in marks.items() if at is not None),
        limits=(0, None),
        unit="remembered σ",
    )
    moved = Curves(
        "channels that moved, surely and by a visible size",
        (Line(of(known, "mean_moved"), "mean", SEEN), Line(of(known, "scale_moved"), "scale", VIOLET)),
        levels=((ENOUGH, "norm moved"),),
        limits=(0, 1),
        unit="share",
    )
    return Figure(
        "memory",
        "Distance between the data and the memory of every norm by depth, and the share of channels that moved.",
        by_depth(known, (distance, moved)),
        "Norms with a memory, in the order in which the data reach them. A channel has moved where the difference is "
        "both certain, counting images and not pixels, and large enough to matter; a norm, where a third of its "
        "channels has.",
    )
