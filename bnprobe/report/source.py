"""What may be given for a recording: itself, whatever holds one, or its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bnprobe.errors import BnprobeError
from bnprobe.recording import Recording, load


def recording_of(source: Any, what: str) -> Recording:
    """The recording of a source, which `what` names in messages."""
    if isinstance(source, str | Path):
        return load(source)
    # a probe is known by what it offers: naming its class here would import torch
    recording = getattr(source, "recording", source)
    if not isinstance(recording, Recording):
        raise BnprobeError(
            f"{what} needs a Probe, a Recording or the path of a saved recording, got {type(source).__name__}. "
            "Use bnprobe.attach(model) and pass what it returns."
        )
    return recording
