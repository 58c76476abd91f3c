"""From facts to a page: which sections it has, and in which order."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.recording import WEIGHTS_ONLY, Recording
from bnprobe.recording.names import said_passes
from bnprobe.report.chapters import chapters, exemplars, timesteps, worth
from bnprobe.report.chapters.answer import Answer, called_at, in_mode, norms_of
from bnprobe.report.chapters.chapter import called, measured_on, unit_of
from bnprobe.report.chapters.findings import findings_section, rule_sections
from bnprobe.report.chapters.glossary import glossary_section
from bnprobe.report.chapters.headline import fresh
from bnprobe.report.chapters.layers import layers
from bnprobe.report.chapters.learned import learned
from bnprobe.report.chapters.overview import overview
from bnprobe.report.chapters.provenance import probed
from bnprobe.report.chapters.spine import spine
from bnprobe.report.chapters.tiles import tiles
from bnprobe.report.numbers import count
from bnprobe.report.page.blocks import Block, Figure, Page, Prose, Section
from bnprobe.report.study_table import StudyTable
from bnprobe.rules.wording import kind_words

MOST_KINDS = 2
"""Kinds of norms that are named beside the title."""

SELF_CONTAINED = "A single self-contained file: works offline and as an attachment."


def compose(
    recording: Recording,
    tables: Tables,
    findings: pd.DataFrame,
    answer: Answer,
    left_out: str = "",
    study: StudyTable | None = None,
    tried: tuple[Section, ...] = (),
) -> Page:
    """The page: the answer, what was learned, findings, the network, every layer, what was probed, rules, glossary.

    `left_out` says in words which findings are not shown. A `study` of ablations is the last chapter but
    what was `tried` on the model.
    """
    written = chapters(recording, tables)
    written += timesteps.chapter(recording, tables) + exemplars.chapter(recording, tables)
    written += () if study is None else (worth.chapter(study),)
    written += tried
    linked = frozenset({"network", "findings", *(section.id for section in written)})
    return Page(
        title=_title(recording),
        lead=_lead(recording),
        sections=(
            *_opening(
                recording,
                tables,
                findings,
                answer,
                left_out,
                linked,
                spine(tables, bool(fresh(tables))),
                study,
            ),
            overview(tables),
            *written,
            layers(recording, tables),
            probed(recording),
            *rule_sections(findings),
            glossary_section(glossary()),
        ),
        footer=f"Made by {recording.about.versions.split(',')[0]} from "
        f"{'weights read' if recording.weights_only else 'a recording of'} {recording.about.started}. {SELF_CONTAINED}",
        badges=badges(recording),
    )


def opening(
    recording: Recording, tables: Tables, findings: pd.DataFrame, answer: Answer, left_out: str = ""
) -> Page:
    """What the same page begins with, without pictures, and what was probed."""
    sections = _opening(recording, tables, findings, answer, left_out)
    return Page(_title(recording), _lead(recording), (*sections, probed(recording)), "", badges(recording))


def badges(recording: Recording) -> tuple[str, ...]:
    """The kinds of norms, most layers first, what was run, and how: what tells this page from others at a glance."""
    kinds = Counter(record.kind for record in recording.layers).most_common(MOST_KINDS)
    words = [kind_words(kind) for kind, _ in kinds]
    if recording.weights_only:
        return (*words, "weights only")
    unit = unit_of(recording)
    words.append("tokens" if unit == "sequence" else f"{unit}s")
    if any(record.gradient is not None for record in recording.layers):
        words.append("gradients")
    return tuple(words)


def _title(recording: Recording) -> str:
    return f"What the norms of {called(recording.about.model)} learned"


def _opening(
    recording: Recording,
    tables: Tables,
    findings: pd.DataFrame,
    answer: Answer,
    left_out: str,
    linked: frozenset[str] = frozenset(),
    pictures: tuple[Figure, ...] = (),
    study: StudyTable | None = None,
) -> tuple[Section, ...]:
    """The answer, what was learned, and the findings; `linked` are the sections that they may lead to."""
    first: tuple[Block, ...] = (
        answer.headline,
        tiles(recording, tables, linked),
        *pictures,
        *([Prose(answer.beside)] if answer.beside else []),
    )
    return (
        Section("answer", "The answer", first, short="Answer"),
        *learned(recording, tables, linked, study),
        findings_section(findings, recording, left_out),
    )


def _lead(recording: Recording) -> str:
    about = recording.about
    layers = {record.layer: record.n_channels for record in recording.layers}
    norms = f"{norms_of(recording)}, {count(sum(layers.values()), 'channel')}{called_at(recording)}"
    if recording.weights_only:
        return f"{norms}; {WEIGHTS_ONLY}, no data were run."
    passes = f" in {said_passes(about.n_forwards, about.n_skipped)}" if about.n_skipped else ""
    return f"{norms}, measured on {measured_on(recording)}{passes} {in_mode(recording)}."
