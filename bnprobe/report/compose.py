"""From facts to a page: which sections it has, and in which order."""

from __future__ import annotations

import pandas as pd

from bnprobe.measures import Tables, glossary
from bnprobe.recording import WEIGHTS_ONLY, Recording
from bnprobe.report.chapters import chapters, worth
from bnprobe.report.chapters.chapter import unit_of
from bnprobe.report.chapters.findings import findings_section, rule_sections
from bnprobe.report.chapters.glossary import glossary_section
from bnprobe.report.chapters.layers import layers
from bnprobe.report.chapters.overview import overview
from bnprobe.report.chapters.provenance import probed
from bnprobe.report.numbers import count, number
from bnprobe.report.page.blocks import Page, Prose, Section
from bnprobe.report.study_table import StudyTable

SELF_CONTAINED = "A single self-contained file: works offline and as an attachment."


def compose(
    recording: Recording,
    tables: Tables,
    findings: pd.DataFrame,
    answer: tuple[str, ...],
    left_out: str = "",
    study: StudyTable | None = None,
) -> Page:
    """The page: what was probed, the answer, findings, the network, every layer, the rules, the glossary.

    `left_out` says in words which findings are not shown. A `study` of ablations is the last chapter.
    """
    return Page(
        title=_title(recording),
        lead=_lead(recording),
        sections=(
            *_opening(recording, findings, answer, left_out),
            overview(tables),
            *chapters(recording, tables),
            *(() if study is None else (worth.chapter(study),)),
            layers(recording, tables),
            *rule_sections(findings),
            glossary_section(glossary()),
        ),
        footer=f"Made by {recording.about.versions.split(',')[0]} from "
        f"{'weights read' if recording.weights_only else 'a recording of'} {recording.about.started}. {SELF_CONTAINED}",
    )


def opening(
    recording: Recording, findings: pd.DataFrame, answer: tuple[str, ...], left_out: str = ""
) -> Page:
    """The beginning of the same page: what was probed, the answer and findings."""
    return Page(_title(recording), _lead(recording), _opening(recording, findings, answer, left_out), "")


def _title(recording: Recording) -> str:
    return f"What the norms of {recording.about.model} learned"


def _opening(
    recording: Recording, findings: pd.DataFrame, answer: tuple[str, ...], left_out: str
) -> tuple[Section, ...]:
    return (
        probed(recording),
        Section("answer", "The answer", (Prose(answer),)),
        findings_section(findings, recording, left_out),
    )


def _lead(recording: Recording) -> str:
    about = recording.about
    layers = {record.layer: record.n_channels for record in recording.layers}
    norms = f"{count(len(layers), 'normalization layer')}, {count(sum(layers.values()), 'channel')}"
    if recording.weights_only:
        return f"{norms}; {WEIGHTS_ONLY}, no data were run."
    return (
        f"{norms}, measured on {count(about.n_images, unit_of(recording))} in {number(about.seconds, 2)} s."
    )
