"""What did normalization learn from the data? See `attach`, `record`, `report`, `check` and `compare`."""

from typing import TYPE_CHECKING

from bnprobe.errors import (
    BadCheckpoint,
    BadImages,
    BadLabels,
    BadMask,
    BadRecordingFile,
    BadSettings,
    BnprobeError,
    CannotCompare,
    CannotFetch,
    CannotMerge,
    CannotProbe,
    CannotWrite,
    NoNormLayers,
    NotDefined,
    NothingRecorded,
    UnknownModel,
)

# Eager, because the package of the same name would otherwise take the function's place on import.
from bnprobe.report import report
from bnprobe.version import __version__

if TYPE_CHECKING:
    from bnprobe.checkpoints.check import check
    from bnprobe.comparison.compare import compare
    from bnprobe.comparison.result import Comparison
    from bnprobe.experiments.ablate import ablate
    from bnprobe.experiments.effect import Effect
    from bnprobe.experiments.invariances.invariances import invariances
    from bnprobe.experiments.plan import Plan
    from bnprobe.experiments.recalibrate import recalibrate
    from bnprobe.experiments.surgery.converted import Converted
    from bnprobe.experiments.surgery.fold import fold
    from bnprobe.experiments.surgery.prune import prune
    from bnprobe.experiments.surgery.replace import replace_norms
    from bnprobe.experiments.synthesize.made import Made
    from bnprobe.experiments.synthesize.synthesize import synthesize
    from bnprobe.experiments.try_remedies import try_remedies
    from bnprobe.norms import NormLayer, register_norm
    from bnprobe.probe import Probe, attach
    from bnprobe.probe.record import Interrupted, record
    from bnprobe.recording import Recording, load
    from bnprobe.report.drift import Drift
    from bnprobe.report.invariances import Invariances
    from bnprobe.report.result import Report
    from bnprobe.report.study import Study
    from bnprobe.rules.tried import Tried
    from bnprobe.scaling.gather import gather

__all__ = [
    "BadCheckpoint",
    "BadImages",
    "BadLabels",
    "BadMask",
    "BadRecordingFile",
    "BadSettings",
    "BnprobeError",
    "CannotCompare",
    "CannotFetch",
    "CannotMerge",
    "CannotProbe",
    "CannotWrite",
    "Comparison",
    "Converted",
    "Drift",
    "Effect",
    "Interrupted",
    "Invariances",
    "Made",
    "NoNormLayers",
    "NormLayer",
    "NotDefined",
    "NothingRecorded",
    "Plan",
    "Probe",
    "Recording",
    "Report",
    "Study",
    "Tried",
    "UnknownModel",
    "__version__",
    "ablate",
    "attach",
    "check",
    "compare",
    "fold",
    "gather",
    "invariances",
    "load",
    "prune",
    "recalibrate",
    "record",
    "register_norm",
    "replace_norms",
    "report",
    "synthesize",
    "try_remedies",
]

# Imported on first use: a report from a file needs no torch, and `bnprobe --help` needs nothing.
_HOMES = {
    "Comparison": "bnprobe.comparison.result",
    "Converted": "bnprobe.experiments.surgery.converted",
    "Drift": "bnprobe.report.drift",
    "Effect": "bnprobe.experiments.effect",
    "Interrupted": "bnprobe.probe.record",
    "Invariances": "bnprobe.report.invariances",
    "Made": "bnprobe.experiments.synthesize.made",
    "NormLayer": "bnprobe.norms",
    "Plan": "bnprobe.experiments.plan",
    "Probe": "bnprobe.probe",
    "Recording": "bnprobe.recording",
    "Report": "bnprobe.report.result",
    "Tried": "bnprobe.rules.tried",
    "Study": "bnprobe.report.study",
    "ablate": "bnprobe.experiments.ablate",
    "attach": "bnprobe.probe",
    "check": "bnprobe.checkpoints.check",
    "compare": "bnprobe.comparison.compare",
    "fold": "bnprobe.experiments.surgery.fold",
    "gather": "bnprobe.scaling.gather",
    "invariances": "bnprobe.experiments.invariances.invariances",
    "load": "bnprobe.recording",
    "prune": "bnprobe.experiments.surgery.prune",
    "recalibrate": "bnprobe.experiments.recalibrate",
    "record": "bnprobe.probe.record",
    "register_norm": "bnprobe.norms",
    "replace_norms": "bnprobe.experiments.surgery.replace",
    "synthesize": "bnprobe.experiments.synthesize.synthesize",
    "try_remedies": "bnprobe.experiments.try_remedies",
}

if not TYPE_CHECKING:  # to a type checker this would make every misspelt name an Any

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'bnprobe' has no attribute {name!r}")
        from importlib import import_module

        from bnprobe.garbage import collector_paused

        with collector_paused():
            home = import_module(_HOMES[name])
        return getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
