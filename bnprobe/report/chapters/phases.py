"""The phases of a recording side by side: on what each was measured, and what was found in it."""

from __future__ import annotations

from collections.abc import Mapping

from bnprobe.recording import Recording
from bnprobe.recording.names import said_passes
from bnprobe.report.chapters.chapter import measured_on
from bnprobe.report.page.blocks import Cell, Prose, Section, Table

HEADS = (
    ("phase", "Name of the phase, as given to probe.phase"),
    ("measured on", "Samples, and forward passes"),
    ("mode", "Modes of the norms"),
    ("findings", "What the rules found, by severity"),
)


def phases_section(shown: str, recordings: Mapping[str, Recording], found: Mapping[str, str]) -> Section:
    """All phases by name, and which of them this page is about; `found` counts the findings of each in words."""
    rows = tuple(
        (
            Cell(name or "(none)", number=False),
            Cell(
                f"{measured_on(one)} in {said_passes(one.about.n_forwards, one.about.n_skipped)}",
                number=False,
            ),
            Cell(", ".join(sorted({record.mode for record in one.layers})), number=False),
            Cell(found[name], number=False),
        )
        for name, one in recordings.items()
    )
    about = f"phase {shown}" if shown else "what ran in no phase"
    others = ", ".join(f"report.phases[{name!r}]" for name in recordings if name and name != shown)
    words = f"This page is about {about}. The other phases have pages of their own: {others}."
    return Section("phases", "Phases", (Prose((words,)), Table(HEADS, rows)))
