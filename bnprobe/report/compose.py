"""From facts to blocks: what the page says, in which order, in whose words."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from bnprobe.findings.pages import rule_page
from bnprobe.measures import Tables, glossary
from bnprobe.recording import WEIGHTS_ONLY, About, LayerRecord, Recording
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
    "n_batches_tracked",
    "half_headroom",
    "follows",
    "feeder",
    "shift_rms",
    "var_ratio_median",
    "own_mean",
    "own_sd",
    "own_log_var_sd",
    "pre_skew_median",
    "pre_kurtosis_median",
)
NEEDS_DATA = ("normalized_by", "never_positive")
ONLY_WITHOUT_DATA = ("n_batches_tracked", "half_headroom", "follows", "feeder")
"""Columns that a page with data has no room for; all of them are in `report.layers`."""

CHANNEL_HEADS = (
    "channel",
    "gamma",
    "beta",
    "running_mean",
    "running_var",
    "filter_norm",
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


def compose(recording: Recording, tables: Tables, findings: pd.DataFrame, left_out: str = "") -> Page:
    """The page: what was probed, the answer, findings, the network, every layer, the rules, the glossary.

    `left_out` says in words which findings are not shown.
    """
    return Page(
        title=f"What the norms of {recording.about.model} learned",
        lead=_lead(recording),
        sections=(
            Section("probed", "What was probed", (Facts(tuple(_facts(recording))),)),
            Section("answer", "The answer", (Prose(tuple(answer(recording, tables, findings))),)),
            Section(
                "findings", "Findings", (_findings(findings), *([Prose((left_out,))] if left_out else []))
            ),
            Section("network", "The network at a glance", (_network_figure(tables), _layer_table(tables))),
            *_gradient_sections(tables),
            Section(
                "layers",
                "Layer by layer",
                (Prose((_how_to_read(recording),)),),
                parts=tuple(_layer_section(i, record, tables) for i, record in enumerate(recording.layers)),
            ),
            Section("provenance", "How it was measured", (Facts(tuple(_provenance(recording))),)),
            *_rule_pages(findings),
            Section(
                "glossary",
                "Glossary",
                (Glossary(tuple(_entries())),),
                folded=True,
                hint="every column, in words",
            ),
        ),
        footer=f"Made by {recording.about.versions.split(',')[0]} from "
        f"{'weights read' if recording.weights_only else 'a recording of'} {recording.about.started}. "
        "One file, no scripts, nothing loaded from elsewhere.",
    )


def nothing_seen(recording: Recording) -> str:
    """What to say of a recording without a single call."""
    if recording.layers:
        return (
            f"{count(recording.about.n_forwards, 'forward pass')} seen, but not one value in them: the batches were "
            "empty. Give batches with at least one image."
        )
    n = len(recording.never_called)
    return (
        f"attached to {count(n, 'layer')}, {count(recording.about.n_forwards, 'forward pass')} seen. Run the object you "
        "attached to; a deepcopy, an exported graph or a wrapper compiled earlier does not report here."
    )


def _lead(recording: Recording) -> str:
    about = recording.about
    n = sum(record.n_channels for record in recording.layers)
    norms = f"{count(len(recording.layers), 'normalization layer')}, {count(n, 'channel')}"
    if recording.weights_only:
        return f"{norms}; {WEIGHTS_ONLY}: no data went through."
    return f"{norms}, {count(about.n_images, 'image')} seen in {number(about.seconds, 2)} s."


def _rule_pages(findings: pd.DataFrame) -> tuple[Section, ...]:
    """The page of every rule that found something; a finding's rule id leads here."""
    rules = sorted(set(findings["rule"]))
    if not rules:
        return ()
    parts = tuple(
        Section(f"rule-{rule}", rule, (Facts(tuple(rule_page(rule).items())),), folded=True) for rule in rules
    )
    return (Section("rules", "What the rules mean", (), parts=parts),)


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
    unseen = NEEDS_DATA if (layers["mode"] == WEIGHTS_ONLY).all() else ONLY_WITHOUT_DATA
    heads = [head for head in LAYER_HEADS if head == "layer" or layers[head].notna().any()]
    heads = [head for head in heads if head not in unseen]
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
    if recording.weights_only:
        return "What is stored, channel by channel; without data there are no distributions."
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
    by = next((name for name in ("shift", "pre_kurtosis") if mine[name].notna().any()), "gamma")
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
        f"Channels of {record.site} by γ and β."
        if record.n_calls == 0
        else f"Distributions of some channels of {record.site} before and after the norm, and its channels by γ and β.",
        partial(draw, record, channels),
    )


def _facts(recording: Recording) -> list[tuple[str, str]]:
    about: About = recording.about
    facts = [("model", f"{about.model}, {about.n_parameters:,} parameters"), ("weights", about.weights)]
    if recording.weights_only:
        return [*facts, ("mode", f"{WEIGHTS_ONLY}: what is stored, without data")]
    return [
        *facts,
        ("data", about.data),
        ("preprocessing", about.preprocessing),
    ]


def _provenance(recording: Recording) -> list[tuple[str, str]]:
    about = recording.about
    if recording.weights_only:
        facts = [
            (
                "read",
                f"{about.started}, nothing was executed"
                if recording.about.device == "none"
                else about.started,
            )
        ]
        facts.append(("versions", about.versions))
        return facts + _left_unread(recording) + [("note", note) for note in about.notes]
    facts = [
        ("seen", f"{count(about.n_images, 'image')} in {count(about.n_forwards, 'forward pass')}"),
        ("time", f"{number(about.seconds, 3)} s in the model, started {about.started}"),
        ("device", about.device),
        ("versions", about.versions),
        ("outputs", _outputs(recording)),
    ]
    return facts + _left_unread(recording) + [("note", note) for note in about.notes]


def _left_unread(recording: Recording) -> list[tuple[str, str]]:
    rows = (("never called", recording.never_called), ("not understood", recording.not_understood))
    return [(name, listed(list(layers), 12)) for name, layers in rows if layers]


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
