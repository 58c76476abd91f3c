"""Every layer's own section: what it does in six numbers, and a few telling channels in a table.

On screen the page's scripts add all channels, their distributions and planes to the layer that is opened; what is
written here is for paper, for searching, and for readers without scripts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.shape import median
from bnprobe.measures.shift import variance_ratio
from bnprobe.measures.tables import by_site
from bnprobe.recording import CHANNELS, LayerRecord, Recording
from bnprobe.report.chapters import running_stats
from bnprobe.report.chapters.chapter import against, running_sds
from bnprobe.report.chapters.spine import finite
from bnprobe.report.chapters.working import Working, working
from bnprobe.report.numbers import count, number, share
from bnprobe.report.page.blocks import Cell, Facts, Moving, Prose, Section, Table
from bnprobe.report.vocabulary import ROLES, written
from bnprobe.rules.wording import kind_words

MOST_ROWS = 5
"""Channels in the table of a layer."""

HEADS = (
    *("channel", "gamma", "beta", "running_mean", "running_var", "pre_mean", "pre_var", "shift", "shift_se"),
    *("scale_ratio", "pre_skew", "pre_kurtosis", "fires", "role", "grad_gamma", "grad_beta", "gamma_snr"),
)


def layers(recording: Recording, tables: Tables) -> Section:
    """How to read it, and a part per site, in the order in which they were reached."""
    return Section(
        "layers",
        "Layer by layer",
        (Prose((_how_to_read(recording),)), Moving("layers")),
        parts=_sections(recording, tables),
        short="Layers",
    )


def _how_to_read(recording: Recording) -> str:
    if recording.weights_only:
        return "Stored values, channel by channel. No data were run, so there are no distributions."
    if all(record.pre_histogram is None for record in recording.layers):
        return "Distributions were not recorded (histograms=False)."
    stored = any(record.has_running for record in recording.layers)
    left = "from the running statistics" if stored else "a Gaussian with the same mean and standard deviation"
    words = (
        f"Blue: measured. Orange: expected (left {left}, right from β and γ). Click a channel, or drag a box around "
        "several, to highlight them in every panel and on the map."
    )
    return f"{words} What errors assume is said under “{running_stats.TITLE}”." if stored else words


def _sections(recording: Recording, tables: Tables) -> tuple[Section, ...]:
    found, sites = working(tables.channels), by_site(tables.channels[list(HEADS)])
    return tuple(
        _section(i, record, channels, not_working(found, i))
        for i, (record, channels) in enumerate(zip(recording.layers, sites, strict=True))
    )


def _section(
    position: int, record: LayerRecord, channels: pd.DataFrame, idle: list[tuple[str, str]]
) -> Section:
    return Section(
        f"layer-{position}",
        record.site,
        (facts(record, channels, idle), Prose((_words(record),)), telling_table(channels)),
        hint=f"{kind_words(record.kind)}, {count(record.n_channels, 'channel')}",
        layer=position,
    )


def telling_table(channels: pd.DataFrame) -> Table:
    """The channels that are shifted most, or without running statistics those with the heaviest tails."""
    columns = {name: channels[name].to_numpy() for name in HEADS}
    heads = [name for name, values in columns.items() if not pd.isna(values).all()]
    by = next((name for name in ("shift", "pre_kurtosis", "gamma") if name in heads), "channel")
    sizes = np.abs(columns[by])
    order = np.argsort(-np.where(np.isnan(sizes), -1, sizes), kind="stable")[:MOST_ROWS]
    cells = [[_cell(value) for value in columns[name][order].tolist()] for name in heads]
    note = f"Sorted by |{by}|."
    if len(channels) > MOST_ROWS:
        note = (
            f"The {MOST_ROWS} of {len(channels):,} channels with the largest |{by}|. All of them are in "
            "report.channels."
        )
    return Table(tuple((head, "") for head in heads), tuple(zip(*cells, strict=True)), note, brief=True)


def _cell(value: object) -> Cell:
    return Cell(ROLES[value], number=False) if isinstance(value, str) else Cell(number(float(value)))  # type: ignore[arg-type]


def _words(record: LayerRecord) -> str:
    """What this layer is, and what is special about how it was measured."""
    kind = f"{record.class_name} with {count(record.n_channels, 'channel')}"
    sentences = [
        f"{kind}, {record.mode}."
        if record.n_calls == 0
        else f"{kind}, in {_MODES.get(record.mode, record.mode)} mode, normalized with {_BY[record.normalized_by]}."
    ]
    if record.output == "read":
        why = (
            "this norm is not one affine map per channel"
            if record.pools == CHANNELS
            else "the layer does more than its formula"
        )
        sentences.append(f"Its output was measured directly, because {why}.")
    if record.parameters_moved:
        sentences.append("γ or β changed during the recording; the values shown are those at its end.")
    if record.buffers_moved:
        sentences.append(
            "The running statistics were updated during the recording; the values shown are those before it."
        )
    return " ".join(sentences)


def facts(record: LayerRecord, channels: pd.DataFrame, idle: list[tuple[str, str]]) -> Facts:
    """What this layer does, in about six numbers; `idle` is what `not_working` says of it."""
    return Facts(
        (
            *_against_running(record, channels),
            *_gamma_and_output(channels),
            *idle,
            *_gradient(channels),
            *_follows(record),
        )
    )


def _against_running(record: LayerRecord, channels: pd.DataFrame) -> list[tuple[str, str]]:
    shift = finite(channels["shift"])
    if not len(shift):
        return []
    if (channels["running_mean"] == 0).all() and (channels["running_var"] == 1).all():
        return [("running statistics", "never updated")]
    with np.errstate(over="ignore"):
        away = float(np.sqrt(np.mean(shift**2)))
    return [
        ("mean off by (rms)", running_sds(away)),
        ("variance", against(median(variance_ratio(record)), "running variance")),
    ]


def _gamma_and_output(channels: pd.DataFrame) -> list[tuple[str, str]]:
    gamma, fires = finite(channels["gamma"].abs()), finite(channels["fires"])
    rows = []
    if len(gamma):
        low, mid, high = np.quantile(gamma, (0.05, 0.5, 0.95))
        rows.append(("|γ|, median (5 to 95%)", f"{number(mid, 2)} ({number(low, 2)} to {number(high, 2)})"))
    if len(fires):
        rows.append(("outputs positive", f"{share(float(np.median(fires)))} (median channel)"))
    return rows


def not_working(found: Working, i: int) -> list[tuple[str, str]]:
    """How many channels of one norm pass nothing on, out of all that it has; empty where that is not known of any."""
    n, size, known = int(found.silent[i]), int(found.sizes[i]), int(found.known[i])
    if not known:
        return []
    words = f"{n:,} of {count(size, 'channel')}" if n else "no channel"
    return [("pass nothing on", f"{words} ({size - known:,} unknown)" if known < size else words)]


def _gradient(channels: pd.DataFrame) -> list[tuple[str, str]]:
    ratio = finite(channels["gamma_snr"])
    if not len(ratio):
        return []
    return [("gradient of γ, signal to noise", f"{number(float(np.median(ratio)), 2)} (median channel)")]


def _follows(record: LayerRecord) -> list[tuple[str, str]]:
    follows = "unknown" if record.neighbours is None else record.neighbours.follows
    return [] if follows == "unknown" else [("followed by", written(follows))]


_MODES = {"mixed": "train and eval"}

_BY = {
    "running": "its running statistics",
    "batch": "the statistics of each batch",
    "both": "running statistics in some calls and batch statistics in others",
    "sample": "each sample's own statistics",
}
