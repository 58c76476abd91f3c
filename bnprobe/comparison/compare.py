"""What may stand on a side of a comparison: a recording, whatever holds one, or a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnprobe.errors import BnprobeError
from bnprobe.recording import HasRecording, Recording

if TYPE_CHECKING:
    from bnprobe.comparison.result import Comparison

Side = Recording | HasRecording | str | Path | Mapping[str, object]
"""What may stand on a side; a mapping is a state dict."""


def compare(a: Side, b: Side, *, config: str | Path | None = None) -> Comparison:
    """Compare two checkpoints, data sets, modes or machines: what changed from `a` to `b`, and where it starts.

    Norms are matched by path and number of channels, and where no path agrees without a prefix that all paths of one side
    have ("model."); the rest is listed in `Comparison.unmatched`. Differences are B - A
    and ratios B / A. Standard errors use samples as units, and the tests of all channels are adjusted together.

    Args:
        a: What was there before: a `Recording`, a `Probe`, a `Report`, the path of a saved recording, or a checkpoint as
            for `check` (a file, an index, a folder of shards, a state dict), of which only what is stored is compared.
        b: What is there now, in any of these forms.
        config: A TOML file of settings, as for `report`.

    Returns:
        The comparison. Tables and pages are computed when first requested.

    Raises:
        CannotCompare: The sides have no norm in common.
        NothingRecorded: A side has no norm at all.
        BadRecordingFile: A path does not hold a sound recording.
        BadCheckpoint: A checkpoint cannot be read.
        NoNormLayers: A checkpoint has no norm.
        BadSettings: `config` cannot be read or names something that does not exist.
        BnprobeError: A side is something else.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)).eval()
        >>> clean = torch.randn(5, 6)
        >>> comparison = bnprobe.compare(bnprobe.record(model, [clean]), bnprobe.record(model, [clean]))
        >>> comparison.identical
        True
        >>> comparison = bnprobe.compare(bnprobe.record(model, [clean]), bnprobe.record(model, [clean + 9]))
        >>> comparison.opens.layer, comparison.opens.aspect
        ('1', 'pre')
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

        return recording_of(source, tensors=True)
    recording = getattr(source, "recording", source)
    if not isinstance(recording, Recording):
        raise BnprobeError(
            f"{side} is a {type(source).__name__}: compare needs a Recording, a Probe, a Report, or the path of a recording "
            "or of a checkpoint. Record a model with bnprobe.record(model, batches)."
        )
    return recording
