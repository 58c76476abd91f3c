"""The training images as the first norm's running means show them: their mean color, and black padding."""

from __future__ import annotations

from bnprobe.measures import StemReading, stem
from bnprobe.measures.padding import Padding
from bnprobe.report.chapters.chapter import Absent, Material
from bnprobe.report.figures.specs import Swatch, Swatches
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Facts, Figure, Prose, Section

TITLE = "What the first layer reveals about the training images"

MOST_LISTED = 4
"""Input channels whose means are listed one by one."""


def chapter(material: Material) -> Section | Absent:
    """The sentence, the color, and what speaks for it; absent with the reason where it cannot be trusted."""
    reading = stem(material.recording)
    if not reading.trusted or reading.mean_input is None:
        why = reading.why.removeprefix("Not identifiable here: ").removesuffix(".")
        return Absent(TITLE, why[:1].lower() + why[1:])
    return Section(
        "stem",
        TITLE,
        (Prose((words(reading),)), *_colours(reading), Facts(tuple(_evidence(reading)))),
        short="Training images",
    )


def words(reading: StemReading) -> str:
    """The mean of the training images, that of this run's, and the black between them."""
    assert reading.mean_input is not None
    mean = reading.mean_pixels or reading.mean_input
    unit = "pixel values from 0 to 1" if reading.mean_pixels else "in units of the model's input"
    seen = reading.seen_pixels or reading.seen_input
    text = f"The training images had a mean of {listed_mean(mean, 3)} ({unit}), "
    text += f"according to the running means of {reading.layer}"
    text += f"; the images of this run have {listed_mean(seen, 3)}." if seen else "."
    padding = _padding(reading)
    return f"{text} {padding}" if padding else text


def _without_black(reading: StemReading) -> tuple[float, ...] | None:
    """The mean of the training images where they were not black; None where no black was found, or no colors are known.

    Black is 0, so a share s of it leaves (1 - s) of every mean.
    """
    padding = reading.padding
    if padding is None or padding.pixels is None or reading.mean_pixels is None:
        return None
    return tuple(value / (1 - padding.share) for value in reading.mean_pixels)


def listed_mean(values: tuple[float, ...], digits: int) -> str:
    """A value per input channel; of many, as of noise, their range."""
    if len(values) > MOST_LISTED:
        return f"{number(min(values), digits)} to {number(max(values), digits)} in {len(values):,} channels"
    return ", ".join(number(value, digits) for value in values)


def _padding(reading: StemReading) -> str:
    padding = reading.padding
    if padding is None:
        return ""
    if not padding.is_seen:
        return f"There is no sign of black padding, within ± {share(2 * padding.share_se)} of all pixels."
    as_bright = "If they were otherwise as bright as the images of this run"
    if padding.pixels is not None:
        rest = _without_black(reading)
        return (
            f"{as_bright}, they were random crops with {count(padding.pixels, 'pixel')} of black padding: "
            f"{share(padding.share)} of what the network saw was black"
            f"{f', and the rest had a mean of {listed_mean(rest, 3)}' if rest else ''}."
        )
    return (
        f"{as_bright}, {share(padding.share)} (± {share(2 * padding.share_se)}) of what the network saw was black"
        f"{_as_from_crops(padding)}."
    )


def _as_from_crops(padding: Padding) -> str:
    """The paddings that would give such a share."""
    if not padding.possible:
        return ", as with padding"
    low, high = min(padding.possible), max(padding.possible)
    pixels = count(low, "pixel") if low == high else f"{low} to {high} pixels"
    return f", as random crops with {pixels} of padding are"


def _colours(reading: StemReading) -> list[Figure]:
    """Patches where the input has red, green and blue."""
    stored = reading.mean_rgb
    if stored is None:
        return []
    patches = [Swatch(stored, "mean color of\nthe training images")]
    for colour, label in (
        (_without_black(reading), "the same without\nblack padding"),
        (reading.seen_pixels, "mean color of the images\nof this run, decoded alike"),
    ):
        if colour is not None and len(colour) == 3:
            patches.append(Swatch((colour[0], colour[1], colour[2]), label))
    red, green, blue = (number(value, 2) for value in stored)
    alt = f"Mean color of the training images, from the first norm: red {red}, green {green}, blue {blue}."
    return [Figure("stem", alt, Swatches(tuple(patches)))]


def _evidence(reading: StemReading) -> list[tuple[str, str]]:
    rows = [("trust", reading.why)]
    padding = reading.padding
    if padding is not None:
        rows.append(
            (
                "padding",
                "correlation of the running means with those that clean images would leave "
                f"{number(padding.corr_clean, 2)}, with those of padded images {number(padding.corr_padded, 3)}; share "
                f"without assuming a size of the padding {share(padding.share_mixed)} ± {share(padding.share_se)}",
            )
        )
    return rows
