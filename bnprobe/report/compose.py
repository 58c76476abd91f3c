"""From facts to blocks: what the page says, in which order, in whose words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from bnprobe.findings.pages import rule_page
from bnprobe.measures import Tables, glossary
from bnprobe.recording import WEIGHTS_ONLY, Recording, site_name
from bnprobe.report.blocks import (
    Entry,
    Facts,
    Figure,
    FindingGroup,
    Findings,
    Glossary,
    Moving,
    Page,
    Prose,
    Section,
    Table,
)
from bnprobe.report.chapters import chapters
from bnprobe.report.interactive import data_of
from bnprobe.report.layer_sections import layer_sections
from bnprobe.report.probed import probed
from bnprobe.report.rows import table
from bnprobe.report.sentences import answer, gradient_words
from bnprobe.report.words import count, listed, number, shorten

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


def compose(recording: Recording, tables: Tables, findings: pd.DataFrame, left_out: str = "") -> Page:
    """The page: what was probed, the answer, findings, the network, every layer, the rules, the glossary.

    `left_out` says in words which findings are not shown.
    """
    return Page(
        title=f"What the norms of {recording.about.model} learned",
        lead=_lead(recording),
        sections=(
            probed(recording),
            Section("answer", "The answer", (Prose(tuple(answer(recording, tables, findings))),)),
            Section(
                "findings",
                "Findings",
                (_findings(findings, recording), *([Prose((left_out,))] if left_out else [])),
            ),
            Section(
                "network",
                "The network at a glance",
                (Moving("map"), _network_figure(tables), _layer_table(tables)),
            ),
            *chapters(recording, tables),
            *_gradient_sections(tables),
            Section(
                "layers",
                "Layer by layer",
                (Prose((_how_to_read(recording),)), Moving("layers")),
                parts=layer_sections(recording, tables),
            ),
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
        "One file, nothing loaded from elsewhere.",
        data=lambda compact: data_of(recording, tables, findings, compact),
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
    layers = {record.layer: record.n_channels for record in recording.layers}
    norms = f"{count(len(layers), 'normalization layer')}, {count(sum(layers.values()), 'channel')}"
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


def _findings(findings: pd.DataFrame, recording: Recording | None = None) -> Findings:
    """Findings that say the same are shown once, with all their places; these lead to the layers of `recording`."""
    layers = recording.layers if recording else ()
    position = {(record.layer, record.call): i for i, record in enumerate(layers)}
    groups = [
        FindingGroup(
            severity=str(severity),
            rule=str(rule),
            says=str(says),
            places=tuple(_place(row) for _, row in group.iterrows()),
            because=tuple(group["because"]),
            do=group["do"].iloc[0],
            source=group["source"].iloc[0],
            at=tuple(_at(row, position) for row in group[["layer", "call", "channels"]].to_dict("records")),
        )
        for (severity, rule, says), group in findings.groupby(["severity", "rule", "says"], sort=False)
    ]
    return Findings(tuple(groups), "No rule found anything.")


def _at(row: dict[Any, Any], position: dict[tuple[str, int], int]) -> tuple[int, int]:
    """Layer and channel of a finding, -1 where it is about none, or about several channels."""
    channels = row["channels"]
    return position.get((row["layer"], row["call"]), -1), int(channels[0]) if len(channels) == 1 else -1


def _place(row: pd.Series) -> str:
    channels = list(row["channels"])
    which = (
        f", channel{'s' if len(channels) > 1 else ''} {listed([str(c) for c in channels], 6)}"
        if channels
        else ""
    )
    return f"{site_name(shorten(row['layer'], 60), row['call'])}{which}" if row["layer"] else "the whole run"


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
        still=True,
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
    shown = table(layers, [head for head in heads if head not in same], note)
    return replace(shown, layers=tuple(range(len(layers))))


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
    return (Section("gradients", "Gradients through depth", (words, figure, table(layers, heads, note))),)


def _how_to_read(recording: Recording) -> str:
    if recording.weights_only:
        return "What is stored, channel by channel; without data there are no distributions."
    if all(record.pre_histogram is None for record in recording.layers):
        return "Distributions were not recorded (histograms=False)."
    return (
        "Filled is what was seen; the line is what the norm remembers (before) or aims at (after). A click on a channel, or "
        "a frame drawn around several, shows them in every panel and on the map above."
    )


def _entries() -> list[Entry]:
    return [Entry(c.name, c.meaning, c.formula, c.unit, c.source) for c in glossary()]
