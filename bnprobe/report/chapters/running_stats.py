"""Running statistics against the data: whether the inputs match them, where a mismatch enters, and where it is gone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures.equivalence import NEAR
from bnprobe.measures.shape import median
from bnprobe.measures.shift_by_depth import Course, course
from bnprobe.measures.verdict import ENOUGH
from bnprobe.recording.names import NEVER_UPDATED, NOT_JUDGED, SAME, SHIFTED, TOO_FEW
from bnprobe.recording.terms import VISIBLE_SHIFT
from bnprobe.report.chapters.chapter import (
    NO_DATA,
    Absent,
    Material,
    against,
    all_norms,
    named,
    noise_of_running,
    running_sds,
    unit_of,
)
from bnprobe.report.colours import INK, MEASURED, VIOLET
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Curves, Line
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Figure, Prose, Section
from bnprobe.report.page.tables import of_all, table

TITLE = "Does your data match training?"
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
NEARLY = 0.9
"""Ratio of variances, or its inverse, above which the mean says more of a mismatch than the variance."""
MOST = 0.5
"""Share of a norm's channels whose shift is significant, from which the data differ there, judged or not."""


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
    note = f"The norms that are shifted{of_all(shifted, MOST_ROWS, ' most')}."
    rows = [table(shifted.head(MOST_ROWS), HEADS, note)] if len(shifted) else []
    words = Prose((_words(known, found, unit_of(material.recording)),))
    noise = noise_of_running(material.recording.layers)
    return Section("running-stats", TITLE, (words, _figure(known, found, noise), *rows), short="Data match")


def _nothing_known(layers: pd.DataFrame) -> str:
    fresh = layers[layers["verdict"] == NEVER_UPDATED]
    if fresh.empty:
        return "no norm keeps running statistics"
    before = " before the recording" if (fresh["memory_moved"] > 0).any() else ""
    return f"the running statistics were never updated{before}"


def _words(known: pd.DataFrame, found: Course, unit: str) -> str:
    few = known[known["verdict"] == TOO_FEW]
    if not found.n_judged:
        return _unjudged(few, unit)
    judged = f"{all_norms(found.n_judged)}{' that could be judged' if len(few) else ''}"
    rest = (
        [f"At {count(len(few), 'more norm')}, {_too_few(few, unit)}.", *_record_more(few, unit)]
        if len(few)
        else []
    )
    if found.opens is not None:
        return " ".join([_shift_words(known, found, judged), *_course_words(known, found), *rest])
    same = known[known["verdict"] == SAME]
    mean, ratio = median(of(same, "shift_rms")), median(of(same, "var_ratio_median"))
    match = (
        f"Your data match the running statistics at {judged}: there the mean is typically off by {running_sds(mean)}, and "
        f"the variance is {against(ratio, 'the running variance')}."
    )
    return " ".join([match, *_same_within(same), *rest])


def _same_within(same: pd.DataFrame) -> list[str]:
    """How near the means are known to be: no shift found is not no shift."""
    within = float(same["same_within"].max())
    return [
        f"At each, two thirds of the channels have means within {running_sds(within)} of the running means (95% confidence)."
    ]


def _unjudged(few: pd.DataFrame, unit: str) -> str:
    """That no norm could be judged; what is significant all the same is not denied."""
    significant = int((few["shifted_share"] > MOST).sum())
    if significant:
        where = (
            f"at {all_norms(len(few)) if significant == len(few) else f'{significant} of {len(few)} norms'}"
        )
        return (
            f"Your data differ from the running statistics beyond sampling error {where}, but {_too_few(few, unit)} by how "
            "much."
        )
    unknown = (
        f"{_too_few(few, unit).capitalize()} whether your data match the running statistics of any norm."
    )
    return " ".join([unknown, *_record_more(few, unit)])


def _too_few(few: pd.DataFrame, unit: str) -> str:
    n = int(few["n_images"].max())
    return f"{count(n, unit)} {'is' if n == 1 else 'are'} too few to tell"


def _record_more(few: pd.DataFrame, unit: str) -> list[str]:
    """How many would do at all of these norms; nothing where as many were seen, so that the estimates are at the limit."""
    needed, n = few["samples_needed"].dropna(), int(few["n_images"].max())
    if needed.empty or needed.max() <= n:
        return []
    if np.isinf(needed.max()):
        return [
            f"No number of {unit}s could show a match within {NEAR} running standard deviations everywhere: the running "
            "statistics themselves are too noisy."
        ]
    more = count(_two_digits(int(needed.max()) - n), f"more {unit}")
    return [f"To judge typical channels to within {NEAR} running standard deviations, record about {more}."]


def _two_digits(n: int) -> int:
    """No less than n, and no more precise than such an estimate is."""
    unit = int(10 ** max(len(str(n)) - 2, 0))
    return -(-n // unit) * unit


def _shift_words(known: pd.DataFrame, found: Course, judged: str) -> str:
    there = known[known["verdict"].isin(SHIFTED)]
    some = f"{found.n_shifted} of {found.n_judged} norms"
    where = judged if found.n_shifted == found.n_judged else some
    typically = "" if found.n_shifted == 1 else "typically "
    ratio, shift = median(of(there, "var_ratio_median")), median(of(there, "shift_rms"))
    if NEARLY < ratio < 1 / NEARLY and shift > VISIBLE_SHIFT:
        off = f"mean is {typically}off by {running_sds(shift)}"
    else:
        off = f"variance is {typically}{against(ratio, 'the running variance')}"
    return f"At {where} your data do not match the running statistics; their {off}."


def _course_words(known: pd.DataFrame, found: Course) -> list[str]:
    """Where the mismatch enters, where it is largest, and whether it is gone at the end."""
    assert found.opens is not None
    assert found.worst is not None
    worst = known.iloc[found.worst]
    size = f"{running_sds(worst['w2_rms'])}, mean and scale together"
    if found.n_shifted == 1:
        where = [f"The mismatch is at {named(worst)} alone: {size}."]
    elif found.opens == found.worst:
        where = [f"The mismatch enters at {named(worst)} and is largest there: {size}."]
    else:
        where = [
            f"The mismatch enters at {named(known.iloc[found.opens])}.",
            f"It is largest at {named(worst)}: {size}.",
        ]
    if found.healed is None:
        return [*where, "It is still there at the last norm that could be judged."]
    return [
        *where,
        f"From {named(known.iloc[found.healed])} on, less than a third of the channels are shifted.",
    ]


def _figure(known: pd.DataFrame, found: Course, noise: str) -> Figure:
    scale = np.sqrt(np.clip(of(known, "w2_rms") ** 2 - of(known, "shift_rms") ** 2, 0, None))
    marks = {found.opens: "enters", found.worst: "largest", found.healed: "gone"}
    if found.opens is not None and found.opens == found.worst:
        marks[found.opens] = "enters, largest"
    distance = Curves(
        "distance of the data from the running statistics (root mean square over channels)",
        (
            Line(of(known, "w2_rms"), "both", INK),
            Line(of(known, "shift_rms"), "mean", MEASURED),
            Line(scale, "scale", VIOLET),
        ),
        marks=tuple((at, words) for at, words in marks.items() if at is not None),
        limits=(0, None),
        unit="running σ",
    )
    moved = Curves(
        "channels that differ beyond sampling error, by 0.2 running σ or a tenth in scale",
        (Line(of(known, "mean_moved"), "mean", MEASURED), Line(of(known, "scale_moved"), "scale", VIOLET)),
        levels=((ENOUGH, "norm shifted"),),
        limits=(0, 1),
        unit="share",
    )
    return Figure(
        "running statistics",
        "Distance of the data from the running statistics of every norm by depth, and the share of channels that differ.",
        by_depth(known, (distance, moved)),
        "Norms with running statistics, in the order in which the data reach them. A channel is shifted where the "
        "difference is both beyond sampling error (false discovery rate 1%), counting samples and not pixels, and large "
        f"enough to matter; a norm, where a third of its channels are. σ is √(running_var + eps). {noise}",
    )
