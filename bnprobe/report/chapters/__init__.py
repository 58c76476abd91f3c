"""The chapters of the page: each opens with what holds for this network, and is left out where it cannot be measured."""

from __future__ import annotations

import warnings
from types import ModuleType

from bnprobe.measures import Tables
from bnprobe.recording import Recording
from bnprobe.report.chapters import (
    affine,
    gradients,
    implied,
    per_sample,
    residual,
    roles,
    running_stats,
    shape,
    stem,
    tokens,
    variance,
)
from bnprobe.report.chapters.chapter import Absent, Material
from bnprobe.report.page.blocks import Prose, Section

CHAPTERS: tuple[ModuleType, ...] = (
    running_stats,
    roles,
    shape,
    variance,
    stem,
    implied,
    affine,
    residual,
    per_sample,
    tokens,
    gradients,
)
"""One file each, in the order of the page; `chapter(material)` gives a Section, or Absent with the reason."""


def chapters(recording: Recording, tables: Tables) -> tuple[Section, ...]:
    """Those that can be written, and after them why the others cannot, if it could have been otherwise."""
    material = Material(recording, tables)
    written = [_written(module, material) for module in CHAPTERS]
    absent = tuple(one.said for one in written if isinstance(one, Absent))
    if recording.weights_only:
        absent = ()  # a file of weights: nobody expects what only data can show
    rest = [Section("not-measured", "Not measured", (Prose(absent),))] if absent else []
    return (*(one for one in written if isinstance(one, Section)), *rest)


def _written(module: ModuleType, material: Material) -> Section | Absent:
    """One chapter; one that cannot be made costs a sentence, never the page."""
    try:
        made: Section | Absent = module.chapter(material)
    except Exception as error:
        warnings.warn(
            f"the chapter {module.TITLE!r} could not be made: {error!r}", RuntimeWarning, stacklevel=3
        )
        return Absent(module.TITLE, f"it could not be made because of an error ({error!r})")
    return made
