"""What channels do: the role each plays for what follows, and how well γ and β alone predict it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.roles import ROLES
from bnprobe.report import colours, vocabulary
from bnprobe.report.chapters.chapter import Absent, Material
from bnprobe.report.chapters.working import working
from bnprobe.report.figures.from_tables import by_depth, of
from bnprobe.report.figures.specs import Cloud, Clouds, Part, Stack
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Figure, Prose, Section

TITLE = "Which channels work?"


def chapter(material: Material) -> Section | Absent:
    """The sentence, roles by depth, and predicted against measured firing."""
    channels = material.tables.channels
    known = channels[channels["role"] != "unknown"]
    if known.empty:
        return Absent(TITLE, "what follows the norms was not recorded, or acts on sums of several")
    if (known["role"] == "linear").all():
        return Absent(TITLE, "no operation that follows these norms cuts or bends their values")
    words = (_words(channels, known), *_prediction(channels))
    return Section(
        "roles",
        TITLE,
        (Prose(words), _by_layer(material.tables), *_firing(channels)),
        short="Channels",
    )


def _words(channels: pd.DataFrame, known: pd.DataFrame) -> str:
    counts = known["role"].value_counts()
    dead, n = int(counts.get("dead", 0)), len(known)
    others = _others(known)
    seen = (channels["n_values"] > 0).any()
    known_by = f" whose role is known{' from the operation that follows' if seen else ''}"
    whose = known_by if n < len(channels) else ""
    if not dead and len(others) == 1:
        all_of = f"All {n:,} channels{whose} are" if n > 1 else f"The one channel{whose} is"
        text = f"{all_of} {others[0][1]}."
    elif dead:
        is_are = "is" if dead == 1 else "are"
        on_these = " on these data" if seen else ""
        cut = "the activation cut every value" if seen else "the activation cuts every value"
        text = f"{dead:,} of {count(n, 'channel')}{whose} {is_are} dead{on_these} ({share(dead / n)}): {cut}."
        text += f" Of the others, {_list(others)}." if others else ""
        text += _together(channels, dead)
    else:
        listed = _list(others)
        text = f"No channel{whose} is dead: of {count(n, 'channel')}, {listed}."
    unknown = len(channels) - n
    if not unknown:
        return text
    why = "they enter a sum first, or go several ways" if seen else "it takes data to tell"
    return f"{text} For {count(unknown, 'more channel')} the role is unknown: {why}."


def _together(channels: pd.DataFrame, dead: int) -> str:
    """How many pass nothing on, as the first screen counts them, where these are more than the dead ones."""
    silent = working(channels).n_silent
    return f" With the nearly constant ones, {silent:,} pass nothing on." if silent > dead else ""


def _ungated(channels: pd.DataFrame) -> pd.Series:
    """Linear channels that nothing follows which could be off: only what an activation follows is on or off."""
    gated = channels["passes"].notna() | channels["dead_predicted"].notna()
    return (channels["role"] == "linear") & ~gated


def _others(known: pd.DataFrame) -> list[tuple[int, str]]:
    """Channels of every role but dead."""
    ungated = _ungated(known)
    counts = known["role"][~ungated].value_counts()
    named = [(int(counts.get(role, 0)), words) for role, words in vocabulary.ROLES.items() if role != "dead"]
    return [(n, words) for n, words in (*named, (int(ungated.sum()), vocabulary.UNGATED)) if n]


def _list(counted: list[tuple[int, str]]) -> str:
    (first, words), *more = counted
    return ", ".join([f"{first:,} {'is' if first == 1 else 'are'} {words}", *(f"{k:,} {w}" for k, w in more)])


def _prediction(channels: pd.DataFrame) -> list[str]:
    """How well the learned vectors alone predict dead channels and positive outputs; nothing without data."""
    sentences = []
    tested = channels[channels["dead_predicted"].notna() & channels["passes"].notna()]
    predicted, dead = tested["dead_predicted"] == 1, tested["passes"] == 0
    both, n = int((predicted & dead).sum()), int(predicted.sum())
    if n:
        in_all = int(dead.sum())
        right = f"all {n:,}" if both == n else f"{both:,} of the {n:,}"
        named = f"{right} that they name {'is' if both == 1 else 'are'} dead (precision {share(both / n)})"
        found = f"{both:,} of the {count(in_all, 'dead channel')}"
        sentences.append(
            f"γ and β alone find {found} (recall {share(both / in_all)}), and {named}."
            if in_all
            else f"γ and β alone name {count(n, 'channel')} as dead, of which none is dead on these data."
        )
    error = (channels["fires_predicted"] - channels["fires"]).abs()
    if error.notna().any():
        measured, skewed = (
            (channels[f"fires_{by}"] - channels["fires"]).abs() for by in ("gaussian", "skewed")
        )
        by_target, by_moments, by_three = (
            number(100 * float(off.mean()), 2) for off in (error, measured, skewed)
        )
        better = f"; the measured mean and standard deviation do it to within {by_moments}"
        if by_three != by_moments:
            helps = float(skewed.mean()) < float(measured.mean())
            worse = "" if helps else ", which makes it worse,"
            better += f", and with the skewness{worse} to within {by_three}"
        instead = better if by_moments != by_target else ""
        sentences.append(
            f"γ and β alone predict how often a channel's output is positive, Φ(β/|γ|), to within {by_target} percentage "
            f"points on average{instead}."
        )
    return [" ".join(sentences)] if sentences else []


def _parts(tables: Tables) -> Iterator[Part]:
    """The share of every role by norm, those that are always on apart from those that no activation follows."""
    layers, channels = tables.layers, tables.channels
    total = of(layers, "n_channels")
    by_norm = _ungated(channels).groupby([channels["layer"], channels["call"]], sort=False)
    ungated = by_norm.sum().to_numpy(np.float64)
    for role in ROLES:
        n = of(layers, f"n_{role}") - (ungated if role == "linear" else 0)
        yield Part(n / total, vocabulary.ROLES[role], colours.ROLES[role], faint=role == "unknown")
        if role == "linear":
            yield Part(ungated / total, vocabulary.NO_ACTIVATION, colours.ROLES[role], faint=True)


def _by_layer(tables: Tables) -> Figure:
    layers = tables.layers
    parts = tuple(part for part in _parts(tables) if (part.values > 0).any())
    return Figure(
        "roles",
        "Shares of channels by their role, for every norm by depth.",
        by_depth(layers, (Stack("what channels do", parts, unit="share of channels"),)),
        "Decided by the operation that follows each norm. Dead: the activation cuts every value. Constant: |γ| below 0.01. "
        "Rarely on: fewer than 5% of the values pass. Always on: the activation changes fewer than 1 in 1,000 values. "
        "Without an activation: a convolution, a sum or the like follows directly. "
        "Unknown: the values enter a sum first, go several ways, or no operation was found. "
        f"In report.channels, {vocabulary.IN_CHANNELS}.",
    )


def _firing(channels: pd.DataFrame) -> list[Figure]:
    """Predicted against measured, from the vectors alone and with the measured moments."""
    measured = of(channels, "fires")
    if not np.isfinite(measured).any() or not np.isfinite(of(channels, "fires_predicted")).any():
        return []
    clouds = tuple(
        Cloud(title, of(channels, column), measured, label, "measured share of y > 0", (0.0, 1.0))
        for title, column, label in (
            ("predicted from γ and β alone", "fires_predicted", "Φ(β / |γ|)"),
            (
                "Gaussian with the measured mean and standard deviation",
                "fires_gaussian",
                "Φ(mean / standard deviation)",
            ),
        )
    )
    return [
        Figure(
            "firing",
            "Share of positive outputs of every channel, as predicted and as measured.",
            Clouds(clouds),
            "Each point is a channel; on the diagonal it is positive as often as predicted. Channels that γ and β "
            "predict badly and the measured moments well have shifted inputs; those that both predict badly are not "
            "Gaussian.",
        )
    ]
