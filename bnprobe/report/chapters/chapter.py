"""What a chapter is given, what it says where the recording lacks what it needs, and words that chapters share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnprobe.measures import Tables
from bnprobe.measures.dependence import counts_folds
from bnprobe.measures.standard_errors import n_running, training_batch
from bnprobe.recording import UNITS, LayerRecord, Recording
from bnprobe.recording.names import said
from bnprobe.report.numbers import count, number, share, shorten

LONGEST = 48
"""Letters of a layer's name in a sentence."""

POSITIONS = {"sequence": "token", "image": "pixel"}
"""What the positions of a sample are called, where the sample has a name."""

SMALL_MAP = 64
"""Positions of a map of 8 x 8: images that are read are larger at the first norm."""

NO_DATA = "no data were run"


@dataclass(frozen=True)
class Material:
    """The recording and the tables made of it."""

    recording: Recording
    tables: Tables


@dataclass(frozen=True)
class Absent:
    """A chapter that cannot be written: its title, and why not, in a few words that end without a stop."""

    title: str
    why: str

    @property
    def said(self) -> str:
        """The title and the reason; a question is answered by a sentence."""
        if self.title.endswith("?"):
            return f"{self.title} {self.why[:1].upper()}{self.why[1:]}."
        return f"{self.title}: {self.why}."


def unit_of(recording: Recording) -> str:
    """What one sample is called: as the user says, else a sequence or an image where the inputs are known to be that."""
    if recording.about.unit in UNITS:
        return UNITS[recording.about.unit]
    if recording.about.normalize is not None or _reads_images(recording):
        return "image"
    return "sequence" if _are_ids(recording) else "sample"


def _reads_images(recording: Recording) -> bool:
    """Whether norms see maps, and do not begin on small ones that grow, as in a generator, which is given noise."""
    planar = [record for record in recording.layers if record.class_name.endswith("2d")]
    sizes = [record.pre.n.max(initial=0) / max(record.n_images, 1) for record in planar]
    return bool(planar) and not 0 < sizes[0] <= SMALL_MAP < max(sizes)


def _are_ids(recording: Recording) -> bool:
    """Whether the model was called with ids of tokens: others may be patches of images, or frames of sound."""
    read = [record.tokens.loudest for record in recording.layers if record.tokens is not None]
    return any((loudest[:, 3] >= 0).any() for loudest in read)


def n_tokens(recording: Recording) -> int:
    """Tokens that went through a model of tokens, by the first norm over features; 0 for other models."""
    read = [record.tokens for record in recording.layers if record.tokens is not None]
    return int(read[0].n_tokens) if read and any(tokens.n.sum() for tokens in read) else 0


def measured_on(recording: Recording) -> str:
    """Samples, and where masks left out padding, the positions that count."""
    about = recording.about
    samples = count(about.n_images, unit_of(recording))
    if not about.n_positions:
        n = n_tokens(recording)
        return f"{samples} ({count(n, POSITIONS.get(unit_of(recording), 'position'))})" if n else samples
    places = count(about.n_positions, POSITIONS.get(unit_of(recording), "position"))
    left_out = f"; {about.n_masked:,} more left out by masks" if about.n_masked else ""
    return f"{samples} ({places}{left_out})"


def called(model: str) -> str:
    """The model without the module that it is from: resnet20 for package.module:resnet20."""
    return model.rpartition(":")[2] if re.fullmatch(r"[\w.]+:\w+", model) else model


def named(row: pd.Series) -> str:
    """The site of a row of the table of layers, as sentences name it."""
    return said(shorten(row["layer"], LONGEST), row["call"])


def opening(row: pd.Series) -> str:
    """The site of a row where a sentence begins with it: a path keeps its letters as they are."""
    name = named(row)
    return f"Layer {name.removeprefix('layer ')}" if name.startswith("layer ") else name


def highest(frame: pd.DataFrame, column: str) -> pd.Series:
    """The row with the largest value of a column that has one."""
    return frame.iloc[int(np.nanargmax(frame[column].to_numpy(dtype=np.float64)))]


def lowest(frame: pd.DataFrame, column: str) -> pd.Series:
    """The row with the smallest value of a column that has one."""
    return frame.iloc[int(np.nanargmin(frame[column].to_numpy(dtype=np.float64)))]


def norms(n: int) -> str:
    """So many norms."""
    return count(n, "norm")


def all_norms(n: int) -> str:
    """All of so many norms: all 3 norms, both norms, or the only norm."""
    return {1: "the only norm", 2: "both norms"}.get(n, f"all {n:,} norms")


def noise_of_running(records: Iterable[LayerRecord]) -> str:
    """What errors take the running statistics to be worth, and whether somebody said so; nothing without any."""
    stored = [record for record in records if record.has_running]
    if not stored:
        return ""
    worth = sorted({round(n_running(record)) for record in stored})
    many = f"{worth[0]:,}" if len(worth) == 1 else f"{worth[0]:,} to {worth[-1]:,}"
    batches = " or ".join(f"{batch:,}" for batch in sorted({training_batch(record) for record in stored}))
    units = "whole batches" if any(map(counts_folds, stored)) else "samples"
    text = (
        f"Errors assume that {units} are independent, and that running statistics are as precise as those of {many} "
        f"samples: batches of {batches} in training"
    )
    if all(record.training_batch for record in stored):
        return f"{text}, as given."
    return (
        f"{text}, an assumed size. If they were smaller (per device), differences look more significant than they are; if "
        "they were larger, less. Give the true size: training_batch=N for attach or report, or --training-batch N."
    )


def running_sds(size: float) -> str:
    """A size in running standard deviations; what is rounding has no digits."""
    return f"{number(size, 2) if size >= 1e-3 else 'under 0.001'} running standard deviations"


def against(ratio: float, what: str) -> str:
    """A ratio to `what` in words: 36% below it, only 5% of it, 2.4 times it, equal to it."""
    if ratio < 0.5:
        return f"only {share(ratio)} of {what}"
    if ratio >= 2:
        return f"{number(ratio, 2)} times {what}"
    if abs(ratio - 1) < 5e-4:
        return f"equal to {what}"
    return f"{share(abs(ratio - 1))} {'below' if ratio < 1 else 'above'} {what}"
