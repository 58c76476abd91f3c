"""What the channels do: the part each plays for what follows, and how well gamma and beta alone predict it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures.roles import ROLES
from bnprobe.report import colours
from bnprobe.report.chapters.chapter import Absent, Material
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Cloud, Clouds, Part, Stack
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE = "What the channels do"

_TOLD = {
    "dead": "dead (nothing passes)",
    "constant": "constant",
    "rare": "rarely active",
    "mixed": "mixed",
    "linear": "never cut",
    "saturated": "saturated",
}


def chapter(material: Material) -> Section | Absent:
    """The sentence, roles by depth, and predicted against measured firing."""
    channels = material.tables.channels
    known = channels[channels["role"] != "unknown"]
    if known.empty:
        return Absent(TITLE, "what follows the norms was not seen, or acts on sums of several")
    if (known["role"] == "linear").all():
        return Absent(TITLE, "nothing that follows these norms cuts or bends their values")
    words = (_words(channels, known), *_prediction(channels))
    return Section("roles", TITLE, (Prose(words), _by_layer(material.tables.layers), *_firing(channels)))


def _words(channels: pd.DataFrame, known: pd.DataFrame) -> str:
    counts = known["role"].value_counts()
    first, *more = [(int(counts[role]), words) for role, words in _TOLD.items() if counts.get(role)]
    parts = [
        f"{first[0]:,} {'is' if first[0] == 1 else 'are'} {first[1]}",
        *(f"{n:,} {words}" for n, words in more),
    ]
    text = f"Of {count(len(known), 'channel')} whose part is known from what follows, {', '.join(parts)}"
    if counts.get("dead"):
        text += f": {share(counts['dead'] / len(known))} of them never contribute"
    rest = len(channels) - len(known)
    if rest:
        text += f"; of {count(rest, 'other')} it is not known, as they enter a sum first or go several ways"
    return text + "."


def _prediction(channels: pd.DataFrame) -> list[str]:
    """How well the learned vectors alone tell the dead, and the firing; nothing without data."""
    sentences = []
    tested = channels[channels["dead_predicted"].notna() & channels["passes"].notna()]
    predicted, dead = tested["dead_predicted"] == 1, tested["passes"] == 0
    both = int((predicted & dead).sum())
    if predicted.any():
        sentences.append(
            f"γ and β alone predict {int(predicted.sum())} dead channels; {both} of them let nothing through here "
            f"(precision {share(both / predicted.sum())})"
            + (
                f", which is {share(both / dead.sum())} of the {int(dead.sum())} that did (recall)."
                if dead.any()
                else "."
            )
        )
    error = (channels["fires_predicted"] - channels["fires"]).abs()
    if error.notna().any():
        seen = (channels["fires_gaussian"] - channels["fires"]).abs()
        sentences.append(
            f"The share of positive outputs that γ and β predict, Φ(β/|γ|), is off by {number(float(error.mean()), 2)} on "
            f"average, and by {number(float(seen.mean()), 2)} once the mean and deviation seen here are put in their place."
        )
    return [" ".join(sentences)] if sentences else []


def _by_layer(layers: pd.DataFrame) -> Figure:
    total = of(layers, "n_channels")
    parts = tuple(
        Part(of(layers, f"n_{role}") / total, role, colours.ROLES[role], faint=role == "unknown")
        for role in ROLES
        if (layers[f"n_{role}"] > 0).any()
    )
    return Figure(
        "roles",
        "Shares of channels by their role, for every norm by depth.",
        by_depth(layers, (Stack("what part the channels play", parts, unit="share of channels"),)),
        "Decided by the operation that really follows each norm. Dead: the activation lets nothing through; constant: "
        "|γ| below 0.01; rare: passes less than 5 % of the time; linear: changed by the activation less than once in "
        "1,000 values; unknown: the values enter a sum first, go several ways, or nothing was seen to follow.",
    )


def _firing(channels: pd.DataFrame) -> list[Figure]:
    """Foretold against measured, from the vectors alone and with what was seen."""
    measured = of(channels, "fires")
    if not np.isfinite(measured).any() or not np.isfinite(of(channels, "fires_predicted")).any():
        return []
    clouds = tuple(
        Cloud(title, of(channels, column), measured, label, "measured share of y > 0", (0.0, 1.0))
        for title, column, label in (
            ("predicted by γ and β alone", "fires_predicted", "Φ(β / |γ|)"),
            ("a Gaussian with the mean and deviation seen", "fires_gaussian", "Φ(mean / deviation)"),
        )
    )
    return [
        Figure(
            "firing",
            "Share of positive outputs of every channel, as predicted and as measured.",
            Clouds(clouds),
            "A point is a channel; on the diagonal it is positive as often as predicted. What is off on the left and not "
            "on the right has moved; what is off on both is not Gaussian.",
        )
    ]
