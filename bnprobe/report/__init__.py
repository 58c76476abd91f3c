"""From a recording to tables, findings, one HTML page and the same page as text. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnprobe.recording import Recording
    from bnprobe.report.result import Report

__all__ = ["report"]


def report(source: Any, *, config: str | Path | None = None) -> Report:
    """Measure and judge what was recorded.

    `source` is a Probe, a Recording, or the path of a saved recording. `config` is a file of settings (see
    `bnprobe.rules.settings`): findings to leave out, and thresholds. Raises NothingRecorded when no forward pass
    reached a norm layer, BadRecordingFile when the path holds no sound recording, and BadSettings.
    """
    from bnprobe.report.result import Report
    from bnprobe.rules.settings import settings

    return Report(_recording_of(source), settings(config))


def _recording_of(source: Any) -> Recording:
    from bnprobe.errors import BnprobeError
    from bnprobe.recording import Recording
    from bnprobe.recording.recording import load

    if isinstance(source, str | Path):
        return load(source)
    # a probe is known by what it offers: naming its class here would import torch
    recording = getattr(source, "recording", source)
    if not isinstance(recording, Recording):
        raise BnprobeError(
            f"report needs a Probe, a Recording or the path of a saved recording, got {type(source).__name__}. "
            "Use bnprobe.attach(model) and pass what it returns."
        )
    return recording
