"""What the norms learned about the data: at most five facts of this network, each with the chapter that proves it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bnprobe.measures import Tables, stem
from bnprobe.measures.shape import median
from bnprobe.recording import Recording
from bnprobe.report.chapters import implied, worth
from bnprobe.report.chapters.chapter import highest, named, unit_of
from bnprobe.report.chapters.headline import begun, untrained
from bnprobe.report.chapters.spine import finite, not_working
from bnprobe.report.figures.from_tables import of
from bnprobe.report.numbers import count, number, share
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
    if untrained(tables) or begun(tables):
        return ()
    facts = [
        *([] if study is None else [Fact(worth.sentence(study), "worth")]),
        *_mean_colour(recording),
        *_scales(tables.channels),
        *_channels(tables.channels),
        *_classes(recording, tables),
        *_implied(tables.layers),
        *_residual_scale(recording, tables.layers),
    ]
    shown = tuple(replace(fact, link=fact.link if fact.link in linked else "") for fact in facts[:MOST])
    return (Section("learned", TITLE, (Learned(shown),)),) if shown else ()


def _mean_colour(recording: Recording) -> list[Fact]:
    reading = stem(recording)
    if not reading.trusted or reading.mean_input is None:
        return []
    mean = reading.mean_pixels or reading.mean_input
    values = ", ".join(number(value, 2) for value in mean)
    known_by = f"read off the running means of {reading.layer}"
    if reading.mean_rgb is None:
        return [Fact(f"The training data had a mean of {values}, {known_by}.", "stem")]
    said = f"The training images had a mean color of {values} (red, green, blue from 0 to 1), {known_by}."
    return [Fact(said, "stem", colors=(_hex(reading.mean_rgb),))]


def _hex(rgb: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * min(max(value, 0.0), 1.0)):02x}" for value in rgb)


def _scales(channels: pd.DataFrame) -> list[Fact]:
    gamma = finite(channels["gamma"].abs())
    if gamma.size < 2 or not np.ptp(gamma) > 0:
        return []
    low, high = (number(float(q), 2) for q in np.quantile(gamma, (0.05, 0.95)))
    by_site = [channels["layer"], channels["call"]]
    typical = channels["gamma"].abs().groupby(by_site, sort=False).median().to_numpy()
    said = f"Training spread |γ|, which began at 1, from {low} to {high} (5% to 95% of the channels)."
    return [Fact(said, "network", bars=bars(typical / 2))]


def _channels(channels: pd.DataFrame) -> list[Fact]:
    silent = not_working(channels)
    n, total = int(silent.sum()), len(channels)
    if not n:
        return []
    never = (
        "pass nothing on, whatever the input" if not (channels["n_values"] > 0).any() else "pass nothing on"
    )
    said = f"{n:,} of {total:,} channels {'passes nothing on' if n == 1 else never} ({share(n / total)})."
    per_norm = silent.groupby([channels["layer"], channels["call"]], sort=False).mean().to_numpy()
    return [Fact(said, "roles", bars=bars(4 * per_norm))]


def _classes(recording: Recording, tables: Tables) -> list[Fact]:
    shares = tables.channels.groupby(["layer", "call"], sort=False)["share_class"].mean()
    layers = tables.layers.assign(by_class=shares.to_numpy())
    known = layers[layers["by_class"].notna() & (layers["n_images"] > 1)]
    if known.empty:
        return []
    most, first = highest(known, "by_class"), known.iloc[0]
    at_most, at_first = (share(max(float(row["by_class"]), 0.0)) for row in (most, first))
    classes = count(int(most["n_classes"]), "class")
    rises = f"{at_first} of a channel's variance at {named(first)} and " if most.name != first.name else ""
    said = f"The {classes} explain {rises}{at_most}{'' if rises else ' of a channel’s variance'} at {named(most)}."
    return [Fact(said, "variance", bars=bars(of(layers, "by_class")))]


def _implied(layers: pd.DataFrame) -> list[Fact]:
    r2 = implied.explained(layers)
    if r2 is None:
        return []
    said = f"{share(r2)} of the variation in a typical norm's running means already follows from the layers before it."
    return [Fact(said[0].upper() + said[1:], "implied", bars=bars(of(layers, "implied_mean_r2")))]


def _residual_scale(recording: Recording, layers: pd.DataFrame) -> list[Fact]:
    known = layers[layers["own_sd"].notna()]
    if len(known) < 2:
        return []
    first, last = float(known["own_sd"].iloc[0]), float(known["own_sd"].iloc[-1])
    spread = (
        median(known["own_log_var_sd"].to_numpy()) / 2
    )  # half the log of the variance is that of the scale
    varies = (
        f", and differ by about {share(spread)} between {unit_of(recording)}s" if 0 < spread < 0.5 else ""
    )
    said = (
        f"The norms undo a scale that goes from {number(first, 2)} at {named(known.iloc[0])} to {number(last, 2)} at "
        f"{named(known.iloc[-1])}{varies}."
    )
    return [Fact(said, "per-sample", bars=bars((np.log10(of(layers, "own_sd")) + 3) / 6))]
