"""What did normalization learn from the data? See `attach`, `record`, `report`, `check` and `compare`."""

from typing import Any

from bnprobe.errors import (
    BadCheckpoint,
    BadImages,
    BadRecordingFile,
    BadSettings,
    BnprobeError,
    CannotCompare,
    CannotMerge,
    CannotProbe,
    CannotWrite,
    NoNormLayers,
    NotDefined,
    NothingRecorded,
    UnknownModel,
)

# Eager, because the room of the same name would otherwise take the function's place on import.
from bnprobe.report import report

__all__ = [
    "BadCheckpoint",
    "BadImages",
    "BadRecordingFile",
    "BadSettings",
    "BnprobeError",
    "CannotCompare",
    "CannotMerge",
    "CannotProbe",
    "CannotWrite",
    "Comparison",
    "NoNormLayers",
    "NormLayer",
    "NotDefined",
    "NothingRecorded",
    "Probe",
    "Recording",
    "Report",
    "UnknownModel",
    "attach",
    "check",
    "compare",
    "load",
    "record",
    "register_norm",
    "report",
]

# Imported on first use: a report from a file needs no torch, and `bnprobe --help` needs nothing.
_HOMES = {
    "NormLayer": "bnprobe.norms",
    "Probe": "bnprobe.probe",
    "Recording": "bnprobe.recording",
    "Report": "bnprobe.report.result",
    "attach": "bnprobe.probe",
    "check": "bnprobe.checkpoints.check",
    "compare": "bnprobe.comparison.compare",
    "Comparison": "bnprobe.comparison.result",
    "load": "bnprobe.recording",
    "record": "bnprobe.probe.record",
    "register_norm": "bnprobe.norms",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bnprobe' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
