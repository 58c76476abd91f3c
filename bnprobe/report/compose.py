"""From facts to blocks: what the page says, in which order, in whose words."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.recording import About, LayerRecord, Recording
from bnprobe.report.blocks import (
    Cell,
    Entry,
    Facts,
    Figure,
    FindingGroup,
    Findings,
    Glossary,
    Page,
    Prose,
    Section,
    Table,
)
from bnprobe.report.sentences import KINDS, answer, gradient_words, layer_words
from bnprobe.report.words import count, listed, number, shorten

MOST_ROWS = 24
"""Channels in the table of a layer; the rest are in `report.channels`."""

LAYER_HEADS = (
    "layer",
    "kind",
    "n_channels",
    "mode",
    "normalized_by",
    "gamma_abs_median",
    "gamma_negative",
    "fires_median",
    "never_positive",
    "shift_rms",
    "var_ratio_median",
    "own_mean",
    "own_sd",
    "own_log_var_sd",
    "pre_skew_median",
    "pre_kurtosis_median",
)
CHANNEL_HEADS = (
    "channel",
    "gamma",
    "beta",
    "running_mean",
    "running_var",
    "pre_mean",
    "pre_var",
    "shift",
    "shift_se",
    "scale_ratio",
    "kl",
    "pre_skew",
    "pre_kurtosis",
    "post_mean",
    "post_var",
    "post_min",
    "post_max",
    "fires",
    "grad_gamma",
    "grad_beta",
    "gamma_snr",
    "energy_removed",
    "importance",
)


def compose(recording: Recording, tables: Tables, findings: pd.DataFrame) -> Page:
    """The page: what was probed, the answer, findings, the network, every layer, the glossary."""
    return Page(
        title=f"What the norms of {recording.about.model} learned",
        lead=_lead(recording),
        sections=(
            Section("probed", "What was probed", (Facts(tuple(_facts(recording))),)),
            Section("answer", "The answer", (Prose(tuple(answer(recording, tables, findings))),)),
            Section("findings", "Findings", (_findings(findings),)),
            Section("network", "The network at a glance", (_network_figure(tables), _layer_table(tables))),
            *_gradient_sections(tables),
            Section(
                "layers",
                "Layer by layer",
                (Prose((_how_to_read(recording),)),),
                parts=tuple(_layer_section(i, record, tables) for i, record in enumerate(recording.layers)),
            ),
            Section("provenance", "How it was measured", (Facts(tuple(_provenance(recording))),)),
            Section(
                "glossary",
                "Glossary",
                (Glossary(tuple(_entries())),),
                folded=True,
                hint="every column, in words",
            ),
        ),
        footer=f"Made by {recording.about.versions.split(',')[0]} from a recording of {recording.about.started}. "
        "One file, no scripts, nothing loaded from elsewhere.",
    )


def nothing_seen(recording: Recording) -> str:
    """What to say of a recording without a single call."""
    n = len(recording.never_called)
    return (
        f"attached to {count(n, 'layer')}, {count(recording.about.n_forwards, 'forward pass')} seen. Run the object you "
        "attached to; a deepcopy, an exported graph or a wrapper compiled earlier does not report here."
    )


def _lead(recording: Recording) -> str:
    about = recording.about
    n = sum(record.n_channels for record in recording.layers)
    return (
        f"{count(len(recording.layers), 'normalization layer')}, {count(n, 'channel')}, "
        f"{count(about.n_images, 'image')} seen in {number(about.seconds, 2)} s."
    )


def _findings(findings: pd.DataFrame) -> Findings:
    """Findings that say the same are shown once, with all their places."""
    groups = [
        FindingGroup(
            severity=str(severity),
            rule=str(rule),
            says=str(says),
            places=tuple(_place(row) for _, row in group.iterrows()),
            because=tuple(group["because"]),
            do=group["do"].iloc[0],
            source=group["source"].iloc[0],
        )
        for (severity, rule, says), group in findings.groupby(["severity", "rule", "says"], sort=False)
    ]
    return Findings(tuple(groups), "No rule found anything.")


def _place(row: pd.Series) -> str:
    call = f" (call {row['call'] + 1})" if row["call"] else ""
    channels = list(row["channels"])
    which = (
        f", channel{'s' if len(channels) > 1 else ''} {listed([str(c) for c in channels], 6)}"
        if channels
        else ""
    )
    return f"{shorten(row['layer'], 60)}{call}{which}" if row["layer"] else "the whole run"


def _network_figure(tables: Tables) -> Figure:
    def draw() -> Any:
        from bnprobe.report import figures

        return figures.network(tables.channels)

    return Figure(
        "network",
        "Maps of the whole network, one column per normalization layer, under a profile by depth.",
        draw,
        "One column per layer, in the order in which the data reach them; within a column the channels are sorted "
        "by |γ|, the largest on top, and every column is stretched to the same height (number of channels in "
        "brackets). Gaps separate stages.",
    )


def _layer_table(tables: Tables) -> Table:
    layers = tables.layers
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    same = [
        head for head in ("kind", "mode", "normalized_by") if len(layers) > 1 and layers[head].nunique() == 1
    ]
    note = "One row per layer; hold the pointer over a column's name for its meaning."
    if same:
        note += (
            " The same for all layers: " + ", ".join(f"{head} {layers[head].iloc[0]}" for head in same) + "."
        )
    return _table(layers, [head for head in heads if head not in same], note)


def _table(frame: pd.DataFrame, heads: list[str], note: str) -> Table:
    meanings = {column.name: column.meaning for column in glossary()}
    return Table(
        tuple((head, meanings[head]) for head in heads),
        tuple(tuple(_cell(row[head]) for head in heads) for _, row in frame[heads].iterrows()),
        note,
    )


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return Cell(shorten(value, 40), number=False)
    return Cell(number(float(value)))


GRADIENT_HEADS = (
    "layer",
    "n_backward",
    "grad_out",
    "grad_in",
    "grad_ratio",
    "energy_removed_layer",
    "gamma_snr_median",
    "beta_snr_median",
    "dy_kurtosis",
    "no_gradient",
    "w_angle_median",
    "gap_centre",
    "gap_map",
    "gap_weight",
)


def _gradient_sections(tables: Tables) -> tuple[Section, ...]:
    """What backward passes did; nothing where there were none."""
    layers = tables.layers[tables.layers["n_backward"] > 0]
    if layers.empty:
        return ()

    def draw() -> Any:
        from bnprobe.report import figures

        return figures.gradients(layers)

    figure = Figure(
        "gradients",
        "Length of the gradient by depth at the output and the input of every norm, and the signal in γ and β.",
        draw,
        "Backward passes run from right to left. Above: length of the gradient at each norm's output and input. "
        "Middle: share of its energy that the norm takes out. Below: signal-to-noise ratio of the gradients of γ and β.",
    )
    heads = [head for head in GRADIENT_HEADS if head == "layer" or layers[head].notna().any()]
    note = "One row per layer; the gap columns are checks, 0 where an identity holds."
    words = Prose((gradient_words(layers),))
    return (Section("gradients", "Gradients through depth", (words, figure, _table(layers, heads, note))),)


def _how_to_read(recording: Recording) -> str:
    if all(record.pre_histogram is None for record in recording.layers):
        return "Distributions were not recorded (histograms=False)."
    return (
        "Each picture shows a few telling channels: the three most shifted, two typical ones, the one with the heaviest "
        "tail and the least shifted. Filled is what was seen; the line is what the norm remembers (before) or aims at "
        "(after)."
    )


def _layer_section(position: int, record: LayerRecord, tables: Tables) -> Section:
    channels = tables.channels
    mine = channels[(channels["layer"] == record.layer) & (channels["call"] == record.call)]
    heads = [head for head in CHANNEL_HEADS if mine[head].notna().any()]
    by = "shift" if mine["shift"].notna().any() else "pre_kurtosis"
    order = mine[by].abs().sort_values(ascending=False, kind="stable", na_position="last").index
    shown = mine.loc[order[:MOST_ROWS]]
    note = f"Sorted by |{by}|."
    if len(mine) > MOST_ROWS:
        note = f"The {MOST_ROWS} of {len(mine):,} channels with the largest |{by}|; all of them are in report.channels."
    return Section(
        f"layer-{position}",
        record.site,
        (Prose((layer_words(record, mine),)), _layer_figure(record, mine), _table(shown, heads, note)),
        folded=True,
        hint=f"{KINDS.get(record.kind, record.kind)}, {count(record.n_channels, 'channel')}",
    )


def _layer_figure(record: LayerRecord, channels: pd.DataFrame) -> Figure:
    def draw(record: LayerRecord, channels: pd.DataFrame) -> Any:
        from bnprobe.report import figures

        return figures.layer(record, channels)

    return Figure(
        f"layer {record.call} {record.layer}",
        f"Distributions of some channels of {record.site} before and after the norm, and its channels by γ and β.",
        partial(draw, record, channels),
    )


def _facts(recording: Recording) -> list[tuple[str, str]]:
    about: About = recording.about
    return [
        ("model", f"{about.model}, {about.n_parameters:,} parameters"),
        ("weights", about.weights),
        ("data", about.data),
        ("preprocessing", about.preprocessing),
    ]


def _provenance(recording: Recording) -> list[tuple[str, str]]:
    about = recording.about
    facts = [
        ("seen", f"{count(about.n_images, 'image')} in {count(about.n_forwards, 'forward pass')}"),
        ("time", f"{number(about.seconds, 3)} s in the model, started {about.started}"),
        ("device", about.device),
        ("versions", about.versions),
        ("outputs", _outputs(recording)),
    ]
    if recording.never_called:
        facts.append(("never called", listed(list(recording.never_called), 12)))
    if recording.not_understood:
        facts.append(("not understood", listed(list(recording.not_understood), 12)))
    return facts + [("note", note) for note in about.notes]


def _outputs(recording: Recording) -> str:
    derived = [record for record in recording.layers if record.output == "derived"]
    read = len(recording.layers) - len(derived)
    gaps = [record.mismatch for record in derived if np.isfinite(record.mismatch)]
    text = (
        f"statistics after the norm derived from the input at {count(len(derived), 'layer')}, read at {read}"
    )
    if gaps:
        text += f"; derived and real output differ by at most {number(max(gaps), 2)} of the largest output"
    return text


def _entries() -> list[Entry]:
    return [Entry(c.name, c.meaning, c.formula, c.unit, c.source) for c in glossary()]
