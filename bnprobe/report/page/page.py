"""From facts to blocks: what the page says, in which order, in whose words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.recording import WEIGHTS_ONLY, Recording, site_name
from bnprobe.report.browser import data_of
from bnprobe.report.chapters import chapters
from bnprobe.report.chapters.answer import answer
from bnprobe.report.chapters.gradients import _gradient_sections
from bnprobe.report.chapters.layers import layer_sections
from bnprobe.report.chapters.overview import _layer_table, _network_figure
from bnprobe.report.chapters.provenance import probed
from bnprobe.report.page.blocks import (
    Entry,
    Facts,
    FindingGroup,
    Findings,
    Glossary,
    Moving,
    Page,
    Prose,
    Section,
)
from bnprobe.report.page.numbers import count, listed, number, shorten
from bnprobe.rules.rule_docs import rule_page


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
