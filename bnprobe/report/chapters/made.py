"""The page of images that were made from running statistics: the answer, the pictures, the table, and what it does not
show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bnprobe.report.figures.thumbnails import data_uri
from bnprobe.report.made_table import (
    CLASSES,
    NEAREST,
    NOISE,
    PERMUTED,
    REAL,
    STATISTICS,
    WHOLE,
    MadeTable,
    Sheet,
    class_name,
    row_of,
)
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Cell, Facts, Headline, Page, Pictures, Prose, Section, Table, Thumbnail
from bnprobe.stats.shares import least_difference
from bnprobe.version import __version__

FEW = 100
"""Classes up to which the share of images that are recognized says most; beyond, the rank of the class does."""

NAMES = {
    WHOLE: "Statistics and classes",
    CLASSES: "Classes only",
    STATISTICS: "Statistics only",
    PERMUTED: "Permuted statistics",
    REAL: "Real images",
    NOISE: "Noise",
    NEAREST: "Nearest real image",
}
MEANINGS = {
    WHOLE: "Made to have the stored running mean and variance in every batch norm, and to be given their class.",
    CLASSES: "Control: made to be given their class, whatever the norms see.",
    STATISTICS: "Control: made to have the running statistics, and no class.",
    PERMUTED: "Control: as the first, but each channel is asked for the statistics of another one of its norm.",
    REAL: "The first images of the data given.",
    NOISE: "Normal noise around gray, every pixel by itself.",
}


def page(made: MadeTable) -> Page:
    """The whole page."""
    sheets = {sheet.name: sheet for sheet in made.sheets}
    near = sheets.pop(NEAREST, None)
    first, others = list(sheets.values())[:1], list(sheets.values())[1:]
    shown = [_pictures(made, sheet, f"{NAMES[sheet.name]}. {MEANINGS[sheet.name]}") for sheet in first]
    sections = [
        Section("answer", "The answer", (_headline(made), *shown, _table(made)), short="Answer"),
        *_controls(made, others),
        *_nearest(made, near),
    ]
    how = (Prose(HOW), Facts(_how(made)))
    sections.append(
        Section("how", "How they were made, and what this does not show", how, short="How they were made")
    )
    shape = " x ".join(map(str, made.shape))
    return Page(
        title=f"Images made from the running statistics of {made.model}",
        lead=f"{count(int(made.table['n'].iloc[0]), 'image')} of {shape} values, made from noise in "
        f"{count(made.steps, 'step')}, without any image.",
        sections=tuple(sections),
        footer=f"Made by bnprobe {__version__}. A single self-contained file: works offline and as an attachment.",
    )


def _controls(made: MadeTable, sheets: list[Sheet]) -> Iterator[Section]:
    """The images of the other rows."""
    beside = [_pictures(made, sheet, f"{NAMES[sheet.name]}. {MEANINGS[sheet.name]}") for sheet in sheets]
    if beside:
        yield Section("controls", "The same with less", tuple(beside), short="Controls")


def _nearest(made: MadeTable, sheet: Sheet | None) -> Iterator[Section]:
    """The real images that are nearest to the first ones."""
    if sheet is not None and made.nearest is not None:
        blocks = (Prose((_far(made, made.nearest),)), _pictures(made, sheet, NEAR))
        yield Section("nearest", "Nearest real images", blocks)


def answer(made: MadeTable) -> str:
    """What running statistics add to the classes: what was measured, and what follows."""
    return " ".join((_evidence(made), _verdict(made)))


def _headline(made: MadeTable) -> Headline:
    """The same, what follows first."""
    title, _, more = _verdict(made).removesuffix(".").partition(": ")
    then = f"{more[:1].upper()}{more[1:]}. " if more else ""
    return Headline("plain", title, f"{then}{_evidence(made)}", answer(made))


def _evidence(made: MadeTable) -> str:
    """How well a judge recognizes the images; without a judge, how near they are to the statistics."""
    if made.judge and made.n_classes:
        return _judged(made, _Measure.of(made, made.n_classes))
    beside = [
        f"{words} {number(row['distance'], 2)}"
        for name, words in (
            (CLASSES, "those made from the classes alone"),
            (REAL, "real images"),
            (NOISE, "noise"),
        )
        if (row := row_of(made, name)) is not None
    ]
    distance = number(made.table.iloc[0]["distance"], 2)
    return (
        f"In the norms of {made.model}, images made from its running statistics lie {distance} running standard deviations "
        f"from them, {' and '.join(beside)}."
    )


SIGNIFICANT = 0.05
"""Probability of a difference of ranks by chance below which it is taken for one."""


@dataclass(frozen=True)
class _Measure:
    """Which column says how well classes are recognized, with its interval, and how it is read."""

    by_rank: bool
    n_classes: int

    @classmethod
    def of(cls, made: MadeTable, n_classes: int) -> _Measure:
        return cls(n_classes > FEW, n_classes)

    def value(self, row: pd.Series) -> str:
        """Of one row."""
        return f"rank {number(row['judge_rank'], 3)}" if self.by_rank else share(row["judge"])

    def interval(self, row: pd.Series) -> str:
        """Of the same."""
        low, high = (row[f"judge_{'rank_' if self.by_rank else ''}{end}"] for end in ("low", "high"))
        return f"{number(low, 3)} to {number(high, 3)}" if self.by_rank else f"{share(low)} to {share(high)}"

    def better(self, row: pd.Series, other: pd.Series) -> bool:
        """Whether the first row's is significantly better than another's: of shares by the interval of their difference, of
        ranks by their test."""
        if self.by_rank:
            return bool(other["judge_worse"] < SIGNIFICANT)
        return least_difference(row["judge"], row["judge_low"], other["judge"], other["judge_high"]) > 0

    def test(self, other: pd.Series) -> str:
        """How probable ranks as much worse are by chance, to follow a control's value; of shares nothing."""
        return f" (p = {number(other['judge_worse'], 2)}, image by image)" if self.by_rank else ""

    @property
    def chance(self) -> str:
        """Of a judge that guesses."""
        return f"{self.n_classes / 2:,.0f}" if self.by_rank else share(1 / self.n_classes)


def _judged(made: MadeTable, measure: _Measure) -> str:
    first = made.table.iloc[0]
    what = "puts the class at" if measure.by_rank else "recognizes"
    beside = [
        f"{measure.value(row)} {words}{measure.test(row)}"
        for name, words in (
            (CLASSES, "when they are made from the classes alone"),
            (PERMUTED, "when channels exchange their statistics"),
        )
        if (row := row_of(made, name)) is not None
    ]
    of = "(median) for" if measure.by_rank else "of"
    return (
        f"{made.judge}, which took no part, {what} {measure.value(first)} {of} the images made from the running "
        f"statistics and classes of {made.model} (95% interval {measure.interval(first)}, {count(int(first['n']), 'image')})"
        + (f"; {' and '.join(beside)}" if beside else "")
        + f"; chance is {measure.chance}."
    )


def _verdict(made: MadeTable) -> str:
    """What follows from the judge and the controls, in a sentence."""
    if not made.n_classes:
        return f"{made.model} scores no classes, so no other network can say what its images show."
    if not made.judge:
        return "No other network judged the images, so nothing here says whether they look like data: pass a judge."
    measure, first = _Measure.of(made, made.n_classes), made.table.iloc[0]
    classes, permuted, noise = (row_of(made, name) for name in (CLASSES, PERMUTED, NOISE))
    if noise is not None and not first["distance"] < noise["distance"]:
        return (
            f"No conclusion: after {count(int(first['steps']), 'step')} they lie no nearer to the running statistics than "
            "noise does. Give more steps."
        )
    if classes is None:
        return "Without the controls, nothing says what of this is in the running statistics."
    if not measure.better(first, classes):
        return "The running statistics add nothing significant to the classes here: the difference may be chance."
    if permuted is not None and not measure.better(first, permuted):
        return (
            "The running statistics help, but no better than those of other channels: it is not what each channel stored "
            "that does it."
        )
    return (
        "Images of a class can be made from the running statistics and the weights together, but not from the weights "
        "alone: each channel's own statistics say what data look like."
    )


HEADS = (
    ("images", "How they were made."),
    ("n", "Images."),
    (
        "itself",
        "Share whose class the network itself puts first. It says little: images were optimized for it.",
    ),
    ("judge", "Share whose class the judge puts first."),
    ("95% interval", "Of the judge's share, Wilson's."),
    (
        "median rank",
        "Of the class among the judge's scores, 1 for the first; half of the images have this rank or a smaller one.",
    ),
    ("distance", "From the running statistics: root mean square over norms, in running standard deviations."),
    ("steps", "Of the optimization."),
)


def _table(made: MadeTable) -> Table:
    rows = tuple(_row(row) for _, row in made.table.iterrows())
    judge = f"Judge: {made.judge}." if made.judge else "There was no judge."
    return Table(HEADS, rows, f"{judge} {_scale(made)}".rstrip())


def _scale(made: MadeTable) -> str:
    """What distances of the made images are to be held against; empty without any."""
    real, noise = (row_of(made, name) for name in (REAL, NOISE))
    if real is None or noise is None:
        return ""
    below = (
        " Made images may come nearer than real ones, as they were optimized to."
        if (made.table["distance"] < real["distance"]).any()
        else ""
    )
    apart = [number(row["distance"]) for row in (real, noise)]
    return f"Beside them: a batch of real images is {apart[0]} away, noise {apart[1]}.{below}"


def _row(row: pd.Series) -> tuple[Cell, ...]:
    known = not pd.isna(row["judge"])
    return (
        Cell(NAMES[row["images"]], number=False),
        Cell(f"{row['n']:,}"),
        Cell(share(row["own"])),
        Cell(share(row["judge"])),
        Cell(f"{share(row['judge_low'])} to {share(row['judge_high'])}" if known else "–"),
        Cell(number(row["judge_rank"])),
        Cell(number(row["distance"])),
        Cell(f"{row['steps']:,}" if row["steps"] else "–"),
    )


def _pictures(made: MadeTable, sheet: Sheet, caption: str) -> Pictures:
    """The images of a row, with their classes and what the judge took them for."""
    side = 64 if sheet.pixels.shape[1] <= 64 else 128
    images = tuple(_thumbnail(made, sheet, i) for i in range(len(sheet.pixels)))
    return Pictures(images, caption, side)


def _thumbnail(made: MadeTable, sheet: Sheet, i: int) -> Thumbnail:
    name, guess = class_name(made, sheet.classes[i]), class_name(made, sheet.guesses[i])
    seen = f", seen as {guess}" if guess and guess != name else ""
    state = "" if not guess or not name else "good" if guess == name else "bad"
    says = f"{name}{seen}"
    return Thumbnail(
        data_uri(sheet.pixels[i]), says, f"{NAMES[sheet.name]} {i + 1}: {says}".rstrip(": "), state
    )


def _far(made: MadeTable, nearest: pd.DataFrame) -> str:
    """How far made images are from real ones, beside how far these are from one another."""
    made_far, real_far = nearest["distance"].median(), nearest["real_distance"].median()
    reals = count(made.n_real, "real image")
    if not real_far > 0:
        return f"The nearest of {reals} to each made image. Data hold the same image several times."
    return (
        f"Pixel by pixel, a made image lies {number(made_far / real_far, 2)} times as far from the nearest of {reals} as "
        "these lie from one another (medians). A copy of one of them would lie much nearer."
    )


NEAR = "The nearest real image to each of the first images above, in their order."


HOW = (
    "All images of a row are one batch. Its mean and variance at the input of every batch norm are compared with the "
    "running mean and variance, in running standard deviations; the sum over norms, the cross entropy to the classes "
    "and a little smoothness are minimized over the pixels by Adam. Early norms weigh up to ten times as much as the "
    "last: they hold contrast and color. An image is the sum of up to five pictures, each of half the side of the one "
    "before, enlarged, and in gray, yellow against blue and magenta against green, which vary independently in "
    "photographs: the optimizer moves large shapes as easily as single pixels. From 64 pixels by side, the finest of them "
    "is left out for the first half of the steps. At each step images are shifted, mirrored and seen through noise, as an "
    "image means the same elsewhere and under noise, and pixels stay within their valid range where it is known.",
    "What the network itself says of the images is no evidence, since they were optimized for it: classes alone give "
    "images that it is certain of and that look like noise. Only a network that took no part can say whether they look "
    "like data. The images show what a batch of the training data has in common, not any single training image.",
    "Channels whose running variance is about 0 had a dead input and are left out. Images for calibration are written "
    "by made.save: see the guide.",
)


def _how(made: MadeTable) -> tuple[tuple[str, str], ...]:
    return (
        ("network", made.model),
        ("judge", made.judge or "none"),
        ("seed", f"{made.seed}"),
        *(("note", note) for note in made.notes),
    )
