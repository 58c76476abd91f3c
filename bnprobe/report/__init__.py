"""From a recording to tables, findings, one HTML page and the same page as text. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnprobe.recording import HasRecording, Recording
    from bnprobe.report.invariances import Invariances
    from bnprobe.report.result import Report
    from bnprobe.report.study import Study

__all__ = ["report"]


def report(
    source: Recording | HasRecording | str | Path,
    *,
    config: str | Path | None = None,
    training_batch: int | None = None,
    study: Study | None = None,
    invariances: Invariances | None = None,
    images: str | Path | None = None,
) -> Report:
    """Turn a recording into tables, findings and one self-contained HTML page.

    Needs no torch for a recording or its file.

    Args:
        source: A `Probe` (attached or not), a `Recording`, a `Report`, or the path of a saved recording.
        config: A TOML file of settings, or a pyproject.toml with [tool.bnprobe]: `ignore` leaves findings out, by rule
            ("channels-constant") or rule and layers ("data-shifted:backbone.*"); `thresholds` moves thresholds. None is
            the default settings.
        training_batch: Samples per batch and device in training, if the recording does not say so yet; see `attach`.
        study: What `bnprobe.ablate` returned for the same model: the page then has a chapter on what each vector is worth.
        invariances: What `bnprobe.invariances` returned for the same model: what it found is then among the findings, and
            the page has a chapter on what was tried.
        images: Folder of the images that were recorded, for thumbnails of exemplars that have paths. Only files below it are
            shown, so that a recording from elsewhere shows nothing else of yours.

    Returns:
        The report. Tables and pages are computed when first requested.

    Raises:
        NothingRecorded: No forward pass reached a normalization layer.
        BadRecordingFile: The path does not hold a sound recording.
        BadSettings: `config` cannot be read or names something that does not exist.
        BnprobeError: `source`, `study` or `invariances` is something else, the study is of another model, there is no folder
            `images`, or `training_batch` is not a whole number of at least 1.

    Example:
        >>> import torch, bnprobe
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
        >>> with bnprobe.attach(model) as probe:
        ...     output = model(torch.randn(4, 3, 9, 9))
        >>> report = bnprobe.report(probe)
        >>> report.channels[["layer", "channel", "gamma", "running_var"]].head(2).values.tolist()
        [['1', 0, 1.0, 1.0], ['1', 1, 1.0, 1.0]]
        >>> "severity" in report.findings, "says" in report.findings, "do" in report.findings
        (True, True, True)
    """
    from bnprobe.errors import BnprobeError
    from bnprobe.report.invariances import Invariances
    from bnprobe.report.result import Report
    from bnprobe.report.source import recording_of
    from bnprobe.report.study_table import StudyTable
    from bnprobe.rules.settings import settings

    recording = recording_of(source, "report")
    if training_batch is not None:
        recording = recording.with_training_batch(training_batch)
    if study is not None and not isinstance(study, StudyTable):
        raise BnprobeError(
            f"study must be what bnprobe.ablate returns, got {type(study).__name__}. Pass that."
        )
    if study is not None and {record.layer for record in recording.layers}.isdisjoint(study.layers):
        raise BnprobeError(
            f"the study is of {study.model}, and none of its norms ({', '.join(study.layers[:3])}) is in the recording. "
            "Pass the study of this model."
        )
    if invariances is not None and not isinstance(invariances, Invariances):
        raise BnprobeError(
            f"invariances must be what bnprobe.invariances returns, got {type(invariances).__name__}. Pass that."
        )
    if images is not None and not Path(images).is_dir():
        raise BnprobeError(f"images: there is no folder {images}. Pass the folder that was recorded.")
    folder = None if images is None else Path(images)
    return Report(recording, settings(config), study, invariances, folder)
