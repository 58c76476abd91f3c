"""Both sides on one spine: how far apart they are by depth, what the choice of samples makes of it, and what each is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bnprobe.comparison import Differences, DifferenceSite, difference_sites, first_beyond_noise
from bnprobe.comparison.first_difference import NOISE
from bnprobe.comparison.significance import ROUNDING
from bnprobe.report.chapters.spine import FARTHEST, LARGEST_GAMMA, SCALES
from bnprobe.report.chapters.stops import Stop, drawn, largest_of, marked_words, mean_of, stop_of, stops_of
from bnprobe.report.figures.from_tables import of
from bnprobe.report.figures.specs import Lane
from bnprobe.report.numbers import number
from bnprobe.report.page.blocks import Figure
from bnprobe.stats.moments import Array

TITLES = {
    "pre": ("difference of the inputs", "σ"),
    "post": ("difference of the outputs", "σ of the layer"),
    "running": ("difference of the running statistics", "running σ"),
    "affine": ("difference of γ and β", "|γ| of the layer"),
}
"""What a gap is of, and its unit."""


def spine(tables: Differences, limit: float) -> tuple[Figure, ...]:
    """The gaps of every norm with the band of sampling error, then what the norms of each side are.

    `limit` is the gap from which a difference is reported. Downwards, too, for a phone; nothing where nothing is known.
    """
    layers = tables.layers
    stops = stops_of(layers)
    known = list(difference_sites(layers))
    marks = _marks(layers, known)
    seen = dict.fromkeys(place.aspect for place in known)
    gaps = [lane for aspect in seen if (lane := _gap(layers, stops, aspect, limit, marks))]
    both = [_deviations(tables, stops), _gammas(tables, stops) if layers["affine_gap"].max() > 0 else None]
    lanes = (*gaps, *(lane for lane in both if lane))
    by = next((f"{aspect}_gap" for aspect in seen), "change")
    return drawn(layers, stops, lanes, _caption(layers, stops, lanes), by)


def _marks(layers: pd.DataFrame, known: list[DifferenceSite]) -> dict[tuple[str, int, str], str]:
    """Words at the first place that samples do not explain, and at the largest difference."""
    first = first_beyond_noise(layers)
    if first is None:
        return {}
    largest = max(known, key=lambda place: place.gap)
    if largest[:3] == first[:3]:
        return {first[:3]: "first, largest"}
    return {first[:3]: "first", largest[:3]: "largest"}


def _gap(
    layers: pd.DataFrame,
    stops: list[Stop],
    aspect: str,
    limit: float,
    marks: dict[tuple[str, int, str], str],
) -> Lane | None:
    """How far apart both sides are, filled where samples do not explain it; nothing where it is 0 throughout."""
    gaps = of(layers, f"{aspect}_gap")
    if not np.nanmax(gaps, initial=0.0) > ROUNDING:
        return None
    noise = (
        NOISE * of(layers, f"{aspect}_noise") if f"{aspect}_noise" in layers else np.full_like(gaps, np.nan)
    )
    sure = (gaps > ROUNDING) & ~(gaps < noise)
    values, band = largest_of(gaps, stops), np.nan_to_num(largest_of(noise, stops))
    sites = [
        (str(layer), int(call), aspect) for layer, call in zip(layers["layer"], layers["call"], strict=True)
    ]
    places = {stop_of(stops, row): marks[site] for row, site in enumerate(sites) if site in marks}
    title, unit = TITLES[aspect]
    return Lane(
        title,
        values,
        unit=unit,
        short=title.removeprefix("difference of the "),
        limits=(0.0, FARTHEST),
        levels=((limit, "reported"),) if aspect == "pre" else (),
        zones=True,
        bands=((np.zeros_like(band), band),) if band.any() else (),
        strong=tuple(bool(sure[list(stop.rows)].any()) for stop in stops),
        marks=tuple(sorted(places.items())),
        words=marked_words(values, places),
    )


def _deviations(tables: Differences, stops: list[Stop]) -> Lane | None:
    """The standard deviation of the inputs on both sides, or where no data were seen, the stored one."""
    seen = bool(tables.layers["pre_gap"].notna().any())
    sides = [np.sqrt(_typical(tables, f"{'pre' if seen else 'running'}_var_{side}", stops)) for side in "ab"]
    title = "standard deviation of the inputs" if seen else "stored standard deviation of the inputs"
    return _of_both(title, "input σ" if seen else "stored σ", sides, SCALES, True, ((1.0, "1"),))


def _gammas(tables: Differences, stops: list[Stop]) -> Lane | None:
    """The typical channel's |γ| on both sides."""
    sides = [_typical(tables, f"gamma_{side}", stops) for side in "ab"]
    return _of_both("learned |γ|", "|γ|", sides, (0.0, LARGEST_GAMMA), False, ((1.0, "untrained"),))


def _typical(tables: Differences, column: str, stops: list[Stop]) -> Array:
    """The median size of a column's values over the channels of every norm, and the mean of that in every place."""
    channels = tables.channels
    sizes = channels[column].abs().groupby([channels["layer"], channels["call"]], sort=False).median()
    return mean_of(sizes.to_numpy(dtype=np.float64), stops)


def _of_both(
    title: str,
    short: str,
    sides: list[Array],
    limits: tuple[float, float],
    logarithmic: bool,
    levels: tuple[tuple[float, str], ...],
) -> Lane | None:
    a, b = sides
    if not (np.isfinite(a).any() and np.isfinite(b).any()):
        return None
    return Lane(
        f"{title} (dots: A, diamonds: B)",
        a,
        short=short,
        limits=limits,
        logarithmic=logarithmic,
        levels=levels,
        other=b,
        words=tuple(f"A {number(one, 2)}, B {number(two, 2)}" for one, two in zip(a, b, strict=True)),
    )


def _caption(layers: pd.DataFrame, stops: list[Stop], lanes: Sequence[Lane]) -> str:
    """How to read it, in one line for what there is."""
    texts = []
    if len(stops) < len(layers):
        texts.append(
            f"{len(layers):,} norms at {len(stops):,} places: each shows the largest difference of its norms."
        )
    if any(lane.other is not None for lane in lanes):
        texts.append("Blue dots: A; orange diamonds: B.")
    if any(lane.bands for lane in lanes):
        texts.append(
            f"Band: what the choice of samples alone would make ({NOISE:g} standard errors); filled beyond it."
        )
    return " ".join(texts)
