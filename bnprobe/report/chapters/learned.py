"""What the norms learned about the data: at most five facts of this network, each with the chapter that proves it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.measures import Tables, stem
from bnprobe.measures.stem import color_order
from bnprobe.recording import Recording
from bnprobe.report.chapters import exemplars, implied, tokens, variance, worth
from bnprobe.report.chapters.chapter import named, unit_of
from bnprobe.report.chapters.headline import fresh
from bnprobe.report.chapters.per_sample import own_scale
from bnprobe.report.chapters.spine import MOST_SILENT, finite, on_scale
from bnprobe.report.chapters.stem import listed_mean
from bnprobe.report.chapters.tiles import NEAR_ONE
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.from_tables import of
from bnprobe.report.numbers import number, share
from bnprobe.report.page.blocks import Fact, Learned, Section, bars
from bnprobe.report.study_table import StudyTable

TITLE = "What the norms learned about the data"
MOST = 5


def learned(
    recording: Recording, tables: Tables, linked: frozenset[str], study: StudyTable | None = None
) -> tuple[Section, ...]:
    """The section; of a network that has learned nothing yet, or of which nothing can be said, there is none.

    `linked` are the sections of the page that a fact may lead to.
    """
    if fresh(tables):
        return ()
    facts = [
        *([] if study is None else [Fact(worth.sentence(study), "worth")]),
        *_mean_colour(recording),
        *_sink(tables.layers),
        *_scales(tables.channels),
        *_channels(tables.channels),
        *_classes(tables),
        *_purest(recording, tables),
        *_implied(tables.layers),
        *_residual_scale(recording, tables.layers),
    ]
    shown = tuple(replace(fact, link=fact.link if fact.link in linked else "") for fact in facts[:MOST])
    return (Section("learned", TITLE, (Learned(shown),), short="Learned"),) if shown else ()


def _mean_colour(recording: Recording) -> list[Fact]:
    reading = stem(recording)
    if not reading.trusted or reading.mean_input is None:
        return []
    mean = reading.mean_pixels or reading.mean_input
    values = listed_mean(mean, 2)
    known_by = f"read off the running means of {reading.layer}"
    if reading.mean_rgb is None:
        return [Fact(f"The training data had a mean of {values} in units of the input, {known_by}.", "stem")]
    order = color_order(np.array(reading.mean_rgb))
    rgb = reading.mean_rgb[::-1] if order == "BGR" else reading.mean_rgb
    in_order = f"in the order {order}" if order else "in the order of the input"
    black = ", black padding included" if reading.padding is not None and reading.padding.is_seen else ""
    said = f"The training images had a mean color of {values} (from 0 to 1, {in_order}{black}), {known_by}."
    return [Fact(said, "stem", colors=(_hex((rgb[0], rgb[1], rgb[2])),))]


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * min(max(value, 0.0), 1.0)):02x}" for value in rgb)


def _sink(layers: pd.DataFrame) -> list[Fact]:
    heights = bars(np.log10(of(layers, "loudest_token").clip(min=1)) / 3)
    return [Fact(said, "tokens", bars=heights) for said in tokens.sink(layers)]


def _scales(channels: pd.DataFrame) -> list[Fact]:
    gamma = finite(channels["gamma"].abs())
    if gamma.size < 2 or not np.ptp(gamma) > 0:
        return []
    low, high = (
        number(float(q), 3 if abs(q - 1) < NEAR_ONE else 2) for q in np.quantile(gamma, (0.05, 0.95))
    )
    by_site = [channels["layer"], channels["call"]]
    typical = channels["gamma"].abs().groupby(by_site, sort=False).median().to_numpy()
    said = f"Training moved |γ|, which begins at 1 by default, to between {low} and {high} in 90% of the channels."
    return [Fact(said, "network", bars=bars(typical / 2))]


def _channels(channels: pd.DataFrame) -> list[Fact]:
    found = working(channels)
    n, total = found.n_silent, found.n_channels
    if not n:
        return []
    never = (
        "pass nothing on, whatever the input" if not (channels["n_values"] > 0).any() else "pass nothing on"
    )
    unknown = f"; of {total - found.n_known:,} it is not known" if found.n_known < total else ""
    said = f"{n:,} of {total:,} channels {'passes nothing on' if n == 1 else never} ({share(n / total)}){unknown}."
    return [Fact(said, "roles", bars=bars(found.shares / MOST_SILENT))]


def _classes(tables: Tables) -> list[Fact]:
    known = variance.shares(tables)
    found = variance.by_class(known)
    if not found:
        return []
    of_it = " of a channel’s variance"
    rises = f"{found.at_first}{of_it} at {named(found.first)} and " if found.rises else ""
    most = f"{found.at_most}{'' if found.rises else of_it} at {named(found.most)}"
    by_norm = known["share_class"].reindex(tables.layers.index).to_numpy()
    return [Fact(f"The {found.classes} explain {rises}{most}.", "variance", bars=bars(by_norm))]


def _purest(recording: Recording, tables: Tables) -> list[Fact]:
    said = exemplars.purest(recording, tables)
    return [Fact(said, "exemplars", bars=bars(exemplars.purities(recording).high))] if said else []


def _implied(layers: pd.DataFrame) -> list[Fact]:
    fit = implied.fit(layers)
    if fit is None or fit.in_doubt or fit.typical < implied.FITS:
        return []
    said = "Running means hold little that is new: the layers before explain"
    where = " in a typical norm" if layers["implied_mean_r2"].notna().sum() > 1 else ""
    said = f"{said} {share(fit.typical)} of their variation{where}."
    return [Fact(said, "implied", bars=bars(of(layers, "implied_mean_r2")))]


def _residual_scale(recording: Recording, layers: pd.DataFrame) -> list[Fact]:
    scale = own_scale(layers)
    if not scale or scale.n < 2:
        return []
    varies = scale.varies(unit_of(recording))
    said = f"The norms undo a scale that {scale.course}{f', and that differs {varies}' if varies else ''}."
    return [Fact(said, "per-sample", bars=bars(on_scale(of(layers, "own_sd"))))]
