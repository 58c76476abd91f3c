"""What was probed, on what, in which mode, when and with what; and whether the model was left as it was."""

from __future__ import annotations

import numpy as np

from bnprobe.recording import WEIGHTS_ONLY, Recording
from bnprobe.recording.names import said_passes
from bnprobe.report.chapters.chapter import measured_on
from bnprobe.report.numbers import count, listed, number
from bnprobe.report.page.blocks import Facts, Section


def probed(recording: Recording) -> Section:
    """The page's first section; how it was measured is folded below."""
    how = Section("provenance", "How it was measured", (Facts(tuple(provenance(recording))),), folded=True)
    return Section(
        "probed", "What was probed", (Facts(tuple(facts(recording))),), parts=(how,), short="Details"
    )


def facts(recording: Recording) -> list[tuple[str, str]]:
    """What a reader must know to believe the rest."""
    about = recording.about
    known = [("model", f"{about.model}, {about.n_parameters:,} parameters"), ("weights", about.weights)]
    if recording.weights_only:
        # where eps and neighbors are from decides what the findings are worth, so it stands where all read it
        notes = [("note", note) for note in about.notes]
        return [*known, ("mode", f"{WEIGHTS_ONLY}: stored values, no data were run"), *notes]
    modes = ", ".join(sorted({record.mode for record in recording.layers}))
    return [
        *known,
        *([("phase", about.phase)] if about.phase else []),
        ("data", about.data),
        ("preprocessing", about.preprocessing),
        ("mode", modes),
        (
            "measured on",
            f"{measured_on(recording)} in {said_passes(about.n_forwards, about.n_skipped)}",
        ),
    ]


def provenance(recording: Recording) -> list[tuple[str, str]]:
    """When, on what and with what the numbers were made, and whether the model was left as it was."""
    about = recording.about
    rest = _left_unread(recording)
    if recording.weights_only:
        read = f"{about.started}, nothing was executed" if about.device == "none" else about.started
        return [("read", read), ("versions", about.versions), *rest]
    return [
        *_time(recording),
        ("device", about.device),
        ("versions", about.versions),
        ("outputs", _outputs(recording)),
        *_integrity(recording),
        *_sources(recording),
        *rest,
        *(("note", note) for note in about.notes),
    ]


def _integrity(recording: Recording) -> list[tuple[str, str]]:
    """What was compared of the model before and after; nothing where nobody compared."""
    integrity = recording.integrity
    return [] if integrity is None else [("left unchanged", str(integrity.says))]


def _time(recording: Recording) -> list[tuple[str, str]]:
    """When and how long; nothing of shards, whose parts keep no times, so that they are the same whenever they are made."""
    about = recording.about
    time = f"{number(about.seconds, 3)} s in the model and the probe, started {about.started}"
    return [("time", time)] if about.started else []


def _sources(recording: Recording) -> list[tuple[str, str]]:
    """How many parts were merged, and which are not among them."""
    n, gone = len(recording.sources), recording.missing
    words = ([f"merged from {n:,}."] if n > 1 else []) + ([gone] if gone else [])
    return [("parts", " ".join(words))] if words else []


def _left_unread(recording: Recording) -> list[tuple[str, str]]:
    rows = (("never called", recording.never_called), ("not understood", recording.not_understood))
    return [(name, listed(list(layers), 12)) for name, layers in rows if layers]


def _outputs(recording: Recording) -> str:
    derived = [record for record in recording.layers if record.output == "derived"]
    read = len(recording.layers) - len(derived)
    gaps = [record.mismatch for record in derived if np.isfinite(record.mismatch)]
    if not derived:
        return f"statistics of outputs measured directly at {count(read, 'layer')}"
    text = f"statistics of outputs derived from the inputs at {count(len(derived), 'layer')}"
    text += f", measured directly at {read}" * bool(read)
    if gaps:
        text += f"; derived and actual outputs differ by at most {number(max(gaps), 2)} of the largest output"
    return text
