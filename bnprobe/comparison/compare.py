"""What may stand on a side of a comparison: a recording, whatever holds one, or a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.errors import BnprobeError
from bnprobe.recording import Recording

if TYPE_CHECKING:
    from bnprobe.comparison.result import Comparison


def compare(a: Any, b: Any, *, config: str | Path | None = None) -> Comparison:
    """What changed from `a` to `b`: two states of a model, two sets of data, two modes, two machines.

    Each may be a Recording, a Probe, a Report, the path of a saved recording, or a checkpoint as `check` reads
    it (a file, an index, a folder of shards, a state dict), of which only what is stored is compared. Record two
    sides in one go with `compare(record(model, clean), record(model, corrupted))`. Norms are compared by
    path and number of channels; the rest is listed in `.unmatched`. `config` is a file of settings, as for `report`.

    Raises CannotCompare where nothing is common, NothingRecorded for a side without any norm, and what
    `load` and `check` raise for a file.
    """
    from bnprobe.comparison.result import Comparison
    from bnprobe.rules.settings import settings

    return Comparison(_recording_of(a, "A"), _recording_of(b, "B"), settings(config))


def _recording_of(source: Any, side: str) -> Recording:
    if isinstance(source, str | Path):
        from bnprobe.recording.codec import is_recording
        from bnprobe.recording.recording import load

        if is_recording(Path(source)):
            return load(source)
    if isinstance(source, str | Path | Mapping):
        from bnprobe.checkpoints.check import recording_of  # needs torch, which two recordings do not

        return recording_of(source)
    recording = getattr(source, "recording", source)
    if not isinstance(recording, Recording):
        raise BnprobeError(
            f"{side} is a {type(source).__name__}: compare needs a Recording, a Probe, a Report, or the path of a recording "
            "or of a checkpoint. Record a model with bnprobe.record(model, batches)."
        )
    return recording
